//! Where random bytes come from: the system, or the seed of a simulation.

use std::fmt;

use mesh_disco::TransactionId;

/// A source of random bytes, which may fail.
pub(crate) struct Random(Box<Fill>);

/// Writes random bytes, and says whether it did.
type Fill = dyn FnMut(&mut [u8]) -> bool + Send;

impl Random {
    /// The system's.
    pub(crate) fn system() -> Self {
        Self::new(|bytes| getrandom::fill(bytes).is_ok())
    }

    /// Bytes that `fill` writes.
    pub(crate) fn new(fill: impl FnMut(&mut [u8]) -> bool + Send + 'static) -> Self {
        Self(Box::new(fill))
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        (self.0)(&mut bytes).then_some(bytes)
    }

    /// The name of a ping. Without randomness it is one that no pong will bear, for nobody can guess that it was sent.
    pub(crate) fn transaction(&mut self) -> TransactionId {
        TransactionId(self.bytes().unwrap_or_default())
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Random").finish_non_exhaustive()
    }
}
