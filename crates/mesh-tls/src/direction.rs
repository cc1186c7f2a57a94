//! One direction of a connection: its key, and how many records it has seen.

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;

use crate::records::RecordError;

pub(crate) struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Direction {
    pub(crate) fn new(
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, RecordError> {
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

    /// Records that this key has sealed or opened.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Seals `content` of the next record in place.
    pub(crate) fn seal(&mut self, header: &[u8], content: &mut [u8]) -> Tag {
        let nonce = self.next_nonce();
        let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::from(header), content);
        sealed.expect("invariant: a record is far below the limits of its cipher")
    }

    /// Opens the next record in place, and returns what it holds.
    pub(crate) fn open<'b>(&mut self, header: &[u8], sealed: &'b mut [u8]) -> Option<&'b [u8]> {
        let nonce = self.next_nonce();
        let opened = self.key.open_in_place(nonce, Aad::from(header), sealed).ok()?;
        Some(opened)
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
