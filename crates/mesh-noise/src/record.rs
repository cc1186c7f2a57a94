//! The record layer: a byte stream cut into records of ChaCha20-Poly1305.
//!
//! A record is `0x04 | big-endian length of the ciphertext (2) | ciphertext with its 16-byte tag`, at most
//! 4096 bytes in all. The nonce is four zero bytes and the record's number, counted per direction from 0,
//! as a **big-endian** `u64`: not what the Noise specification says, but what every Tailscale client does,
//! and the reason why snow's own transport cannot be used. There is no associated data and no rekeying.
//! Source: tailscale `control/controlbase/conn.go`.

use bytes::{Buf, BytesMut};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use thiserror::Error;

use crate::handshake::FRAME_HEADER_BYTES;

/// Most bytes a record has on the wire, header included.
pub const RECORD_BYTES_MAX: usize = 4096;

/// Most plaintext bytes a record carries.
pub const RECORD_PLAINTEXT_BYTES_MAX: usize = RECORD_BYTES_MAX - FRAME_HEADER_BYTES - TAG_BYTES;

const TAG_BYTES: usize = 16;
const TYPE_RECORD: u8 = 4;
const KEY_BYTES: usize = 32;

/// Why a channel is broken. Each of them is for good: the two ends no longer agree on what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The header is that of another kind of frame.
    #[error("frame of type {got} where a record was due")]
    Type {
        /// The type that came.
        got: u8,
    },
    /// The header announces a ciphertext that is shorter than a tag or longer than a record may be.
    #[error("record of {got} bytes of ciphertext")]
    Length {
        /// The announced length of the ciphertext in bytes.
        got: usize,
    },
    /// The record was made with another key or number, or changed on its way.
    #[error("record does not authenticate")]
    Unauthentic,
    /// All 2^64 - 1 numbers of this direction are used.
    #[error("no record numbers left")]
    Exhausted,
}

/// One end of an open channel. Its two directions are independent of each other.
#[derive(Debug)]
pub struct Transport {
    /// Encrypts what this end sends.
    pub sealer: Sealer,
    /// Decrypts what the other end sends.
    pub opener: Opener,
}

/// Key and number of the next record of one direction.
#[derive(Debug)]
struct Cipher {
    key: LessSafeKey,
    /// `u64::MAX` when exhausted: that number is never used.
    next_number: u64,
}

impl Cipher {
    fn new(key: &[u8; KEY_BYTES]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key)
            .expect("invariant: a ChaCha20-Poly1305 key has 32 bytes");
        Self { key: LessSafeKey::new(key), next_number: 0 }
    }

    /// Uses up one record number.
    fn next_nonce(&mut self) -> Result<Nonce, RecordError> {
        let number = self.next_number;
        self.next_number = number.checked_add(1).ok_or(RecordError::Exhausted)?;
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - size_of::<u64>()..].copy_from_slice(&number.to_be_bytes());
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// Encrypts one direction of a channel.
///
/// It writes to one buffer, whose end may be a record that is still open: what is written next joins it.
#[derive(Debug)]
pub struct Sealer {
    cipher: Cipher,
    /// Length of the open record at the end of the buffer: place for its header, then plaintext. 0: none.
    open_bytes: usize,
}

impl Sealer {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self { cipher: Cipher::new(key), open_bytes: 0 }
    }

    /// Appends the pieces, one after the other, to `out` as records: as few as possible, so that several
    /// pieces may share one; none for no bytes.
    ///
    /// What is appended must reach the other end whole and in this order.
    ///
    /// # Errors
    /// [`RecordError::Exhausted`]; `out` then holds the records that still had a number.
    pub fn seal_into<'a>(
        &mut self,
        pieces: impl IntoIterator<Item = &'a [u8]>,
        out: &mut BytesMut,
    ) -> Result<(), RecordError> {
        pieces.into_iter().try_for_each(|piece| self.append(piece, out))?;
        self.finish(out)
    }

    /// Appends a piece to `out`, and seals the records that it fills. The last one stays open until
    /// [`Self::finish`]; nothing but this sealer may append to `out` meanwhile, and none of the open record may
    /// be sent.
    ///
    /// # Errors
    /// [`RecordError::Exhausted`], as [`Self::seal_into`].
    pub fn append(&mut self, mut piece: &[u8], out: &mut BytesMut) -> Result<(), RecordError> {
        while !piece.is_empty() {
            if self.open_bytes == 0 {
                out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
                self.open_bytes = FRAME_HEADER_BYTES;
            }
            let room = RECORD_BYTES_MAX - TAG_BYTES - self.open_bytes;
            let (fitting, rest) = piece.split_at(room.min(piece.len()));
            out.extend_from_slice(fitting);
            self.open_bytes += fitting.len();
            piece = rest;
            if fitting.len() == room {
                self.finish(out)?;
            }
        }
        Ok(())
    }

    /// Seals the record at the end of `out`, if one is open.
    ///
    /// # Errors
    /// [`RecordError::Exhausted`], as [`Self::seal_into`].
    pub fn finish(&mut self, out: &mut BytesMut) -> Result<(), RecordError> {
        let open_bytes = std::mem::take(&mut self.open_bytes);
        if open_bytes == 0 {
            return Ok(());
        }
        let start = out.len() - open_bytes;
        let nonce = self.cipher.next_nonce().inspect_err(|_| out.truncate(start))?;
        let (header, plaintext) = out[start..].split_at_mut(FRAME_HEADER_BYTES);
        let length = u16::try_from(plaintext.len() + TAG_BYTES)
            .expect("invariant: a record's plaintext fits its length field");
        header[0] = TYPE_RECORD;
        header[1..].copy_from_slice(&length.to_be_bytes());
        let tag = self
            .cipher
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), plaintext)
            .expect("invariant: a record is far below the cipher's limit of 256 GiB");
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }
}

/// Decrypts one direction of a channel.
#[derive(Debug)]
pub struct Opener {
    cipher: Cipher,
    /// Set by the first error and repeated from then on.
    broken: Option<RecordError>,
}

impl Opener {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self { cipher: Cipher::new(key), broken: None }
    }

    /// Takes one whole record off the front of `buf`, if it has arrived, and returns its plaintext, which
    /// may be empty. Decrypts in place: nothing is copied.
    ///
    /// Returns `Ok(None)` and leaves `buf` untouched while bytes are missing.
    ///
    /// # Errors
    /// As soon as the header is read, so that nobody makes us wait for a record we would refuse. Every
    /// later call repeats the error.
    pub fn open(&mut self, buf: &mut BytesMut) -> Result<Option<BytesMut>, RecordError> {
        self.broken.map_or(Ok(()), Err)?;
        self.open_next(buf).inspect_err(|error| self.broken = Some(*error))
    }

    fn open_next(&mut self, buf: &mut BytesMut) -> Result<Option<BytesMut>, RecordError> {
        let Some(length) = ciphertext_bytes(buf)? else { return Ok(None) };
        if buf.len() < FRAME_HEADER_BYTES + length {
            return Ok(None);
        }
        let nonce = self.cipher.next_nonce()?;
        buf.advance(FRAME_HEADER_BYTES);
        let mut record = buf.split_to(length);
        let plaintext_bytes = self
            .cipher
            .key
            .open_in_place(nonce, Aad::empty(), &mut record)
            .map_err(|_| RecordError::Unauthentic)?
            .len();
        record.truncate(plaintext_bytes);
        Ok(Some(record))
    }
}

/// The length that the header at the front of `buf` announces, or `None` while the header is incomplete.
fn ciphertext_bytes(buf: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(&[frame_type, high, low]) = buf.first_chunk() else { return Ok(None) };
    if frame_type != TYPE_RECORD {
        return Err(RecordError::Type { got: frame_type });
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if (TAG_BYTES..=RECORD_BYTES_MAX - FRAME_HEADER_BYTES).contains(&length) {
        Ok(Some(length))
    } else {
        Err(RecordError::Length { got: length })
    }
}

#[cfg(test)]
mod tests;
