//! Records of a connection whose handshake is over.

use rustls::ExtractedSecrets;
use rustls::kernel::KernelConnection;
use thiserror::Error;

use crate::direction::Direction;

/// Bytes of a record before its sealed part.
const HEADER_BYTES: usize = 5;

/// Bytes that prove a record.
const TAG_BYTES: usize = 16;

/// Most bytes of content in a record.
const CONTENT_BYTES_MAX: usize = 16 << 10;

/// Most bytes of a record as it travels.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + CONTENT_BYTES_MAX + 256;

/// Records that a key seals until another takes its place: half of what AES-GCM bears.
///
/// Source: RFC 8446, section 5.5.
const SEALED_MAX: u64 = 1 << 23;

/// Key updates that may come in a row without data between them: each costs as much time as many records.
///
/// Source: `BoringSSL`, `kMaxKeyUpdates`, which rustls follows.
const KEY_UPDATES_MAX: u32 = 32;

/// Types of content.
mod content {
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const DATA: u8 = 23;
}

/// A goodbye: a warning that nothing more comes.
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// The handshake message that brings tickets for sessions to come, of which nobody here makes use.
const NEW_SESSION_TICKET: u8 = 4;

/// The handshake message that says that other keys follow, without and with the wish that we do the same.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

/// Why a connection's records cannot be read on.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum RecordError {
    /// The suite or the key is none that is known.
    #[error("unknown cipher suite")]
    Suite,
    /// A record is longer than any may be, or too short.
    #[error("record of {0} bytes")]
    Length(usize),
    /// It was not sealed with the other side's key and its number.
    #[error("record does not open")]
    Forged,
    /// A record of a type or with a message that has no place after the handshake.
    #[error("record of type {0} out of place")]
    Unexpected(u8),
    /// The other side changes its keys and says nothing with them.
    #[error("more than {KEY_UPDATES_MAX} key updates in a row")]
    KeyUpdates,
    /// There are no next keys.
    #[error("cannot make the next keys")]
    Keys(#[from] rustls::Error),
    /// The other side ends the connection with this alert.
    #[error("alert {0}")]
    Alert(u8),
}

/// Both directions of a connection. `Data` is rustls's, of a client or a server.
pub struct Records<Data> {
    kernel: KernelConnection<Data>,
    sealer: Direction,
    opener: Direction,
    /// Whether the other side wants us to take other keys too.
    owes_key_update: bool,
    /// Key updates that came since the last data.
    key_updates: u32,
    /// Whether the other side has said that nothing more comes.
    has_ended: bool,
}

impl<Data> Records<Data> {
    /// Goes on where a handshake ended.
    pub(crate) fn new(
        secrets: ExtractedSecrets,
        kernel: KernelConnection<Data>,
    ) -> Result<Self, RecordError> {
        let (sealer, opener) = (Direction::new(secrets.tx)?, Direction::new(secrets.rx)?);
        Ok(Self {
            kernel,
            sealer,
            opener,
            owes_key_update: false,
            key_updates: 0,
            has_ended: false,
        })
    }

    /// Whether the other side has said that nothing more comes.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Appends records with all of `data` to `out`.
    ///
    /// # Errors
    /// [`RecordError::Keys`], when it is time for other keys and there are none.
    pub fn seal(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<(), RecordError> {
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(CONTENT_BYTES_MAX));
            self.seal_with(out, |out| out.extend_from_slice(now))?;
            data = later;
        }
        Ok(())
    }

    /// Appends a record with what `write` appends, at most 16 KiB, to `out`.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn seal_with<T>(
        &mut self,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> Result<T, RecordError> {
        if self.owes_key_update || self.sealer.sequence() >= SEALED_MAX {
            self.owes_key_update = false;
            self.seal_one(out, content::HANDSHAKE, |out| out.extend_from_slice(&KEY_UPDATE));
            self.sealer = Direction::new(self.kernel.update_tx_secret()?)?;
        }
        Ok(self.seal_one(out, content::DATA, write))
    }

    /// Appends the goodbye to `out`. Nothing may follow.
    pub fn seal_close(&mut self, out: &mut Vec<u8>) {
        self.seal_one(out, content::ALERT, |out| out.extend_from_slice(&CLOSE_NOTIFY));
    }

    fn seal_one<T>(
        &mut self,
        out: &mut Vec<u8>,
        content_type: u8,
        write: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> T {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        let written = write(out);
        out.push(content_type);
        let sealed_bytes = out.len() - start - HEADER_BYTES + TAG_BYTES;
        let length = u16::try_from(sealed_bytes).expect("invariant: content is bounded");
        let [high, low] = length.to_be_bytes();
        let header = [content::DATA, 3, 3, high, low];
        out[start..start + HEADER_BYTES].copy_from_slice(&header);
        let tag = self.sealer.seal(&header, &mut out[start + HEADER_BYTES..]);
        out.extend_from_slice(tag.as_ref());
        written
    }

    /// Opens the first record of `input` with data in place and advances `taken`, which bytes of `input` are done with,
    /// behind it; `None` while bytes are missing, and after the other side's goodbye.
    ///
    /// # Errors
    /// The connection is of no use any more. A length is judged as soon as it is there.
    pub fn open<'b>(
        &mut self,
        input: &'b mut [u8],
        taken: &mut usize,
    ) -> Result<Option<&'b [u8]>, RecordError> {
        while !self.has_ended {
            let waiting = &input[*taken..];
            let Some(&[outer, _, _, high, low]) = waiting.first_chunk::<HEADER_BYTES>() else {
                break;
            };
            let bytes = usize::from(u16::from_be_bytes([high, low]));
            if HEADER_BYTES + bytes > RECORD_BYTES_MAX {
                return Err(RecordError::Length(bytes));
            }
            if waiting.len() < HEADER_BYTES + bytes {
                break;
            }
            let record = *taken..*taken + HEADER_BYTES + bytes;
            *taken = record.end;
            if outer != content::DATA {
                return Err(RecordError::Unexpected(outer));
            }
            let start = record.start + HEADER_BYTES;
            if let Some(data) = self.open_one(&mut input[record])? {
                return Ok(Some(&input[start..start + data]));
            }
        }
        Ok(None)
    }

    /// Opens a record, and tells how many bytes of data stand behind its header then.
    fn open_one(&mut self, record: &mut [u8]) -> Result<Option<usize>, RecordError> {
        let (header, sealed) = record.split_at_mut(HEADER_BYTES);
        let opened = self.opener.open(header, sealed).ok_or(RecordError::Forged)?;
        // Padding of zeros may stand behind the type.
        let end = opened.iter().rposition(|byte| *byte != 0).ok_or(RecordError::Length(0))?;
        if end > CONTENT_BYTES_MAX {
            return Err(RecordError::Length(end));
        }
        let message = &opened[..end];
        match opened[end] {
            content::DATA => {
                // A record of no data costs the other side nothing.
                if end > 0 {
                    self.key_updates = 0;
                }
                return Ok(Some(end));
            }
            content::ALERT if message == CLOSE_NOTIFY => self.has_ended = true,
            content::ALERT => return Err(RecordError::Alert(message.last().copied().unwrap_or(0))),
            content::HANDSHAKE if message == KEY_UPDATE || message == KEY_UPDATE_REQUESTED => {
                self.key_updates += 1;
                if self.key_updates > KEY_UPDATES_MAX {
                    return Err(RecordError::KeyUpdates);
                }
                // One answer is enough for however many.
                self.owes_key_update |= message == KEY_UPDATE_REQUESTED;
                self.opener = Direction::new(self.kernel.update_rx_secret()?)?;
            }
            content::HANDSHAKE if message.first() == Some(&NEW_SESSION_TICKET) => {}
            other => return Err(RecordError::Unexpected(other)),
        }
        Ok(None)
    }
}

impl<Data> std::fmt::Debug for Records<Data> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
