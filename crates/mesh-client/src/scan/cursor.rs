//! A position in JSON that may not be all there yet: `Ok(None)` is "wait for more".

use mesh_wire::NodeId;

use super::ScanError;

/// The key that stands before a member's value, and the value; `None` is the end of the object.
type Member<'a> = Option<(&'a [u8], &'a [u8])>;

#[derive(Debug)]
pub(super) struct Cursor<'a> {
    json: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(json: &'a [u8]) -> Self {
        Self { json, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// What lies between `start` and here.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        &self.json[start..self.position]
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.json.get(self.position).copied()
    }

    pub(super) fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.position += 1;
        }
    }

    /// Goes beyond one byte, after which the scanner is at `at`.
    pub(super) fn step<T>(&mut self, at: T) -> T {
        self.position += 1;
        at
    }

    pub(super) fn expect(&mut self, byte: u8) -> Result<(), ScanError> {
        if self.peek() != Some(byte) {
            return Err(ScanError::Malformed);
        }
        self.position += 1;
        Ok(())
    }

    /// Reads a key and its colon, and goes to the value.
    pub(super) fn key(&mut self) -> Result<Option<&'a [u8]>, ScanError> {
        let Some(key) = self.value()? else { return Ok(None) };
        let [b'"', key @ .., b'"'] = key else { return Err(ScanError::Malformed) };
        self.skip_space();
        if self.peek().is_none() {
            return Ok(None);
        }
        self.expect(b':')?;
        self.skip_space();
        Ok(Some(key))
    }

    /// Reads the next member of an object whose brace is behind.
    pub(super) fn member(&mut self) -> Result<Option<Member<'a>>, ScanError> {
        loop {
            self.skip_space();
            match self.peek() {
                None => return Ok(None),
                Some(b',') => self.position += 1,
                Some(b'}') => return Ok(Some(self.step(None))),
                Some(_) => break,
            }
        }
        let Some(key) = self.key()? else { return Ok(None) };
        Ok(self.value()?.map(|value| Some((key, value))))
    }

    /// Reads an object to its end, and of its members the id under `key`.
    pub(super) fn id(&mut self, key: &[u8]) -> Result<Option<NodeId>, ScanError> {
        self.expect(b'{')?;
        let mut id = None;
        loop {
            match self.member()? {
                None => return Ok(None),
                Some(None) => return id.map(Some).ok_or(ScanError::Malformed),
                Some(Some((name, value))) if name == key => id = Some(number(value)?),
                Some(Some(_)) => {}
            }
        }
    }

    /// Reads a whole value, whatever it is.
    pub(super) fn value(&mut self) -> Result<Option<&'a [u8]>, ScanError> {
        let start = self.position;
        let is_whole = match self.peek() {
            None => false,
            Some(b'"') => self.skip_string(),
            Some(b'{' | b'[') => self.skip_nested(),
            Some(_) => self.skip_scalar()?,
        };
        Ok(is_whole.then(|| self.since(start)))
    }

    /// Goes beyond the string that begins here; false if its end is not there yet.
    fn skip_string(&mut self) -> bool {
        self.position += 1;
        while let Some(rest) = self.json.get(self.position..) {
            let Some(offset) = find_quote_or_backslash(rest) else { return false };
            self.position += offset + 1;
            if rest[offset] == b'"' {
                return true;
            }
            // What is escaped is one byte, or begins with one that needs no care.
            self.position += 1;
        }
        false
    }

    /// Goes beyond the object or list that begins here.
    fn skip_nested(&mut self) -> bool {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    if !self.skip_string() {
                        return false;
                    }
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.position += 1;
            if depth == 0 {
                return true;
            }
        }
        false
    }

    /// Goes beyond a number or a literal, which ends where something else begins.
    fn skip_scalar(&mut self) -> Result<bool, ScanError> {
        let start = self.position;
        while let Some(byte) = self.peek() {
            if matches!(byte, b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E') {
                self.position += 1;
            } else if self.position == start {
                return Err(ScanError::Malformed);
            } else {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Reads an id.
pub(super) fn number(text: &[u8]) -> Result<NodeId, ScanError> {
    let text = std::str::from_utf8(text).map_err(|_| ScanError::Malformed)?;
    // A sign is no digit, though `parse` would take one.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits).ok_or(ScanError::Malformed)?;
    Ok(NodeId(number))
}

const WORD_BYTES: usize = size_of::<u64>();
const ONES: u64 = u64::from_ne_bytes([1; WORD_BYTES]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; WORD_BYTES]);

/// Where the first quote or backslash is. Looks at eight bytes at once: strings are most of a map.
fn find_quote_or_backslash(text: &[u8]) -> Option<usize> {
    let mut words = text.chunks_exact(WORD_BYTES);
    let mut offset = 0;
    for word in words.by_ref() {
        let word = u64::from_le_bytes(word.try_into().expect("invariant: a chunk is a word"));
        let found = marks(word, b'"') | marks(word, b'\\');
        if found != 0 {
            return Some(offset + found.trailing_zeros() as usize / WORD_BYTES);
        }
        offset += WORD_BYTES;
    }
    let rest = words.remainder().iter().position(|byte| matches!(byte, b'"' | b'\\'));
    rest.map(|position| offset + position)
}

/// Marks the bytes that are `byte` by their high bit; above the lowest of them there may be marks in error.
fn marks(word: u64, byte: u8) -> u64 {
    let zero_where_equal = word ^ u64::from_ne_bytes([byte; WORD_BYTES]);
    zero_where_equal.wrapping_sub(ONES) & !zero_where_equal & HIGHS
}
