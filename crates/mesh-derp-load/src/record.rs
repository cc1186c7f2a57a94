//! The record layer of TLS 1.3, in place and without a copy.
//!
//! rustls makes the handshake; what comes after is sealed and opened here, where the bytes are. A relay pays for its buffers,
//! the bench must not, or it would be the slower one of the two.
//!
//! Source: RFC 8446, section 5.

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};
use thiserror::Error;

/// Bytes of a record before its sealed part.
const HEADER_BYTES: usize = 5;

/// Bytes that prove a record.
const TAG_BYTES: usize = 16;

/// Most bytes of content in a record.
const CONTENT_BYTES_MAX: usize = 16 << 10;

/// Most bytes of a record as it travels.
pub(crate) const RECORD_BYTES_MAX: usize = HEADER_BYTES + CONTENT_BYTES_MAX + 256;

/// Types of content.
mod content {
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const DATA: u8 = 23;
}

/// The handshake message that asks for other keys.
const KEY_UPDATE: u8 = 24;

/// Why a connection's records cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum RecordError {
    /// The suite or the key is none that is known.
    #[error("unknown cipher suite")]
    Suite,
    /// A record is longer than any may be, or too short.
    #[error("record of {0} bytes")]
    Length(usize),
    /// It was not sealed with our key and its number.
    #[error("record does not open")]
    Forged,
    /// The other side asks for other keys, which the bench does not do.
    #[error("other side asks for other keys")]
    KeyUpdate,
    /// The other side says goodbye.
    #[error("other side ends the connection")]
    Alert,
}

/// Both directions of a connection.
pub(crate) struct Records {
    sealer: Direction,
    opener: Direction,
}

impl Records {
    /// Goes on where the handshake ended.
    pub(crate) fn new(secrets: ExtractedSecrets) -> Result<Self, RecordError> {
        Ok(Self { sealer: Direction::new(secrets.tx)?, opener: Direction::new(secrets.rx)? })
    }

    /// Appends a record with what `write` appends, at most 16 KiB, to `out`.
    pub(crate) fn seal<T>(
        &mut self,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> T {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        let written = write(out);
        out.push(content::DATA);
        let sealed_bytes = out.len() - start - HEADER_BYTES + TAG_BYTES;
        let length = u16::try_from(sealed_bytes).expect("invariant: content is bounded");
        let [high, low] = length.to_be_bytes();
        let header = [content::DATA, 3, 3, high, low];
        out[start..start + HEADER_BYTES].copy_from_slice(&header);
        let nonce = self.sealer.next_nonce();
        let content = &mut out[start + HEADER_BYTES..];
        let tag = self.sealer.key.seal_in_place_separate_tag(nonce, Aad::from(header), content);
        let tag = tag.expect("invariant: a record is far below the limits of its cipher");
        out.extend_from_slice(tag.as_ref());
        written
    }

    /// Opens the first record of `input` with data in place and advances `taken`, which bytes of `input` are done with,
    /// behind it; `None` while bytes are missing.
    pub(crate) fn open<'b>(
        &mut self,
        input: &'b mut [u8],
        taken: &mut usize,
    ) -> Result<Option<&'b [u8]>, RecordError> {
        loop {
            let waiting = &input[*taken..];
            let Some(&[outer, _, _, high, low]) = waiting.first_chunk::<HEADER_BYTES>() else {
                return Ok(None);
            };
            let bytes = usize::from(u16::from_be_bytes([high, low]));
            if HEADER_BYTES + bytes > RECORD_BYTES_MAX {
                return Err(RecordError::Length(bytes));
            }
            if waiting.len() < HEADER_BYTES + bytes {
                return Ok(None);
            }
            let record = *taken..*taken + HEADER_BYTES + bytes;
            *taken = record.end;
            // A change of cipher, sent for the sake of old middleboxes, is not sealed and means nothing.
            if outer != content::DATA {
                continue;
            }
            if let Some(data) = self.open_one(&mut input[record.clone()])? {
                let start = record.start + HEADER_BYTES;
                return Ok(Some(&input[start..start + data]));
            }
        }
    }

    /// Opens a record, and tells how many bytes of data stand behind its header then.
    fn open_one(&mut self, record: &mut [u8]) -> Result<Option<usize>, RecordError> {
        let (header, sealed) = record.split_at_mut(HEADER_BYTES);
        let nonce = self.opener.next_nonce();
        let opened = self.opener.key.open_in_place(nonce, Aad::from(&*header), sealed);
        let opened = opened.map_err(|_| RecordError::Forged)?;
        let end = opened.iter().rposition(|byte| *byte != 0).ok_or(RecordError::Length(0))?;
        match (opened[end], opened[..end].first()) {
            (content::DATA, _) => Ok(Some(end)),
            (content::HANDSHAKE, Some(&KEY_UPDATE)) => Err(RecordError::KeyUpdate),
            (content::ALERT, _) => Err(RecordError::Alert),
            // Tickets for sessions to come.
            _ => Ok(None),
        }
    }
}

struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::Suite),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| RecordError::Suite)?;
        let iv = iv.as_ref().try_into().map_err(|_| RecordError::Suite)?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::cipher::{AeadKey, Iv};

    use super::*;

    /// Two ends; each one's sending key is the other's receiving key.
    fn ends() -> [Records; 2] {
        let secrets = |byte: u8| {
            let (key, iv) = (AeadKey::from([byte; 32]), Iv::from([byte; 12]));
            (u64::from(byte), ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv })
        };
        [(1, 2), (2, 1)].map(|(tx, rx)| {
            Records::new(ExtractedSecrets { tx: secrets(tx), rx: secrets(rx) }).unwrap()
        })
    }

    #[test]
    fn records_open_at_the_other_end_in_their_order() {
        let [mut near, mut far] = ends();
        let mut wire = Vec::new();
        for text in ["first", "second with \0 inside\0"] {
            near.seal(&mut wire, |out| out.extend_from_slice(text.as_bytes()));
        }
        let mut taken = 0;
        for text in [Some("first"), Some("second with \0 inside\0"), None] {
            assert_eq!(far.open(&mut wire, &mut taken).unwrap(), text.map(str::as_bytes));
        }
        assert_eq!(taken, wire.len());
    }

    #[test]
    fn half_a_record_is_left_alone_and_a_forged_one_refused() {
        let [mut near, mut far] = ends();
        let mut wire = Vec::new();
        near.seal(&mut wire, |out| out.extend_from_slice(b"text"));
        let last = wire.len() - 1;
        let mut taken = 0;
        assert_eq!(far.open(&mut wire[..last], &mut taken).unwrap(), None);
        assert_eq!(taken, 0);
        wire[last] ^= 1;
        assert_eq!(far.open(&mut wire, &mut taken), Err(RecordError::Forged));
    }

    #[test]
    fn a_length_beyond_all_records_is_refused_at_its_header() {
        let [mut near, _] = ends();
        let mut wire = [content::DATA, 3, 3, 0xff, 0xff];
        assert_eq!(near.open(&mut wire, &mut 0), Err(RecordError::Length(0xffff)));
    }
}
