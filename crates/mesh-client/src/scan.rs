//! Finds out which peers a message names, without decoding it.
//!
//! A load harness follows thousands of map streams; decoding every message would cost more than the server spends on
//! making it. The scanner walks the JSON once, reads the ids, and hands each entry over undecoded. It is no
//! validator: of valid JSON it tells the truth, of anything else some tale or an error. Keys are matched as servers
//! write them, not without regard to case.

mod cursor;

use mesh_wire::NodeId;
use thiserror::Error;

use cursor::Cursor;

/// Who is told what a [`Scanner`] finds, in the order of the message. `raw` is the JSON of the entry.
pub trait PeerSink {
    /// The message is a keep-alive.
    fn keep_alive(&mut self);
    /// The own node.
    fn node(&mut self, id: NodeId, raw: &[u8]);
    /// All peers are told anew: those before are void. Peers follow, at least one.
    fn full(&mut self);
    /// A whole peer, of all of them or changed.
    fn peer(&mut self, id: NodeId, raw: &[u8]);
    /// A peer that is gone.
    fn removed(&mut self, id: NodeId);
    /// Some fields of a peer.
    fn patched(&mut self, id: NodeId, raw: &[u8]);
    /// A peer came online or went offline.
    fn online(&mut self, id: NodeId, online: bool);
    /// Changed peers follow, if any.
    fn changes(&mut self) {}
    /// Any field whose value is no list of the above, also those that were told in another way already. `raw` is the value.
    fn field(&mut self, _key: &[u8], _raw: &[u8]) {}
}

/// Why JSON cannot be scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScanError {
    /// It is no map response.
    #[error("message is no map response")]
    Malformed,
    /// It ends too early.
    #[error("message ends in the middle")]
    Unfinished,
}

/// Where in a message a piece of it ends: which piece follows is understood from it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(At);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    Start,
    /// Among the fields of the message.
    Fields,
    /// Among the elements of a list.
    List(List),
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum List {
    /// All peers, before the first of them.
    PeersBegin,
    Peers,
    Removed,
    Patches,
}

/// Scans one message, which may come in pieces.
#[derive(Debug)]
pub struct Scanner {
    at: At,
    /// The beginning of a field or of an element whose end has not come yet.
    carried: Vec<u8>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { at: At::Start, carried: Vec::new() }
    }
}

impl Scanner {
    /// A scanner before its message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Scans the next piece and tells `sink` what is in it.
    ///
    /// # Errors
    /// The sink was told what came before the error.
    pub fn feed(&mut self, piece: &[u8], sink: &mut impl PeerSink) -> Result<(), ScanError> {
        if self.carried.is_empty() {
            let used = self.scan(piece, sink)?;
            self.carried.extend_from_slice(&piece[used..]);
            return Ok(());
        }
        let mut json = std::mem::take(&mut self.carried);
        json.extend_from_slice(piece);
        let used = self.scan(&json, sink)?;
        json.drain(..used);
        self.carried = json;
        Ok(())
    }

    /// Where the scanner stands, if the piece before ended between two elements or fields.
    pub fn place(&self) -> Option<Place> {
        self.carried.is_empty().then_some(Place(self.at))
    }

    /// How many bytes wait for the end of a field or of an element, to be looked at anew with the next piece.
    pub(crate) fn carried_bytes(&self) -> usize {
        self.carried.len()
    }

    /// Goes on at another place, as if the piece in between had been scanned.
    pub fn jump(&mut self, place: Place) {
        self.at = place.0;
        self.carried.clear();
    }

    /// Checks that the message is complete.
    pub fn finish(&self) -> Result<(), ScanError> {
        let whole = self.at == At::End && self.carried.iter().all(u8::is_ascii_whitespace);
        if whole { Ok(()) } else { Err(ScanError::Unfinished) }
    }

    /// Scans as many whole fields and elements as there are. Returns how many bytes they take.
    fn scan(&mut self, json: &[u8], sink: &mut impl PeerSink) -> Result<usize, ScanError> {
        let mut cursor = Cursor::new(json);
        loop {
            cursor.skip_space();
            let start = cursor.position();
            let Some(next) = cursor.peek() else { return Ok(start) };
            let stepped = match (self.at, next) {
                (At::Fields, b'}') => Some(cursor.step(At::End)),
                (At::Start, b'{') | (At::List(_), b']') => Some(cursor.step(At::Fields)),
                (At::Fields | At::List(_), b',') => Some(cursor.step(self.at)),
                (At::Fields, b'"') => field(&mut cursor, sink)?,
                (At::List(list), _) => element(list, &mut cursor, sink)?,
                (At::Start | At::Fields | At::End, _) => return Err(ScanError::Malformed),
            };
            match stepped {
                Some(at) => self.at = at,
                None => return Ok(start),
            }
        }
    }
}

/// Scans a field, or up to the first element of a list. `None` is that its end is not there yet.
fn field(cursor: &mut Cursor<'_>, sink: &mut impl PeerSink) -> Result<Option<At>, ScanError> {
    let Some(key) = cursor.key()? else { return Ok(None) };
    let Some(first) = cursor.peek() else { return Ok(None) };
    let list = match key {
        b"Peers" => Some(List::PeersBegin),
        b"PeersChanged" => Some(List::Peers),
        b"PeersRemoved" => Some(List::Removed),
        b"PeersChangedPatch" => Some(List::Patches),
        _ => None,
    };
    if let (Some(list), b'[') = (list, first) {
        if key == b"PeersChanged" {
            sink.changes();
        }
        return Ok(Some(cursor.step(At::List(list))));
    }
    let Some(value) = cursor.value()? else { return Ok(None) };
    match key {
        b"KeepAlive" if value == b"true" => sink.keep_alive(),
        b"Node" if first == b'{' => {
            let id = Cursor::new(value).id(b"ID")?.ok_or(ScanError::Malformed)?;
            sink.node(id, value);
        }
        b"OnlineChange" if first == b'{' => online_changes(value, sink)?,
        _ => {}
    }
    sink.field(key, value);
    Ok(Some(At::Fields))
}

fn element(
    list: List,
    cursor: &mut Cursor<'_>,
    sink: &mut impl PeerSink,
) -> Result<Option<At>, ScanError> {
    let start = cursor.position();
    let id = match list {
        List::Removed => cursor.value()?.map(cursor::number).transpose()?,
        List::PeersBegin | List::Peers => cursor.id(b"ID")?,
        List::Patches => cursor.id(b"NodeID")?,
    };
    let Some(id) = id else { return Ok(None) };
    let raw = cursor.since(start);
    match list {
        List::PeersBegin => {
            sink.full();
            sink.peer(id, raw);
        }
        List::Peers => sink.peer(id, raw),
        List::Removed => sink.removed(id),
        List::Patches => sink.patched(id, raw),
    }
    Ok(Some(At::List(if list == List::PeersBegin { List::Peers } else { list })))
}

/// Reads `{"1":true,"2":false}`.
fn online_changes(object: &[u8], sink: &mut impl PeerSink) -> Result<(), ScanError> {
    let mut cursor = Cursor::new(object);
    cursor.expect(b'{')?;
    while let Some((key, value)) = cursor.member()?.ok_or(ScanError::Malformed)? {
        sink.online(cursor::number(key)?, value == b"true");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
