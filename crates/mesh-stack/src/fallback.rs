//! Fallbacks: who else may want a connection that no listener wants.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use crate::listen::{BindError, ListenKey};

/// Most fallbacks at a time: each one more is asked for every connection that nobody else wants.
const FALLBACKS_MAX: usize = 64;

/// Says of a connection, given source and destination, whether its fallback takes it.
pub(crate) type Decide = Box<dyn Fn(SocketAddr, SocketAddr) -> bool + Send>;

/// The fallbacks, asked in the order in which they came.
#[derive(Default)]
pub(crate) struct Fallbacks {
    by_number: BTreeMap<u64, Decide>,
    next_number: u64,
}

impl Fallbacks {
    pub(crate) fn insert(&mut self, decide: Decide) -> Result<ListenKey, BindError> {
        if self.by_number.len() >= FALLBACKS_MAX {
            return Err(BindError::TooManyFallbacks);
        }
        let number = self.next_number;
        self.next_number += 1;
        self.by_number.insert(number, decide);
        Ok(ListenKey::Fallback(number))
    }

    pub(crate) fn remove(&mut self, key: ListenKey) {
        if let ListenKey::Fallback(number) = key {
            self.by_number.remove(&number);
        }
    }

    /// The first one that takes a connection from `remote` to `local`.
    pub(crate) fn find(&self, remote: SocketAddr, local: SocketAddr) -> Option<ListenKey> {
        let taker = self.by_number.iter().find(|(_, decide)| decide(remote, local));
        taker.map(|(number, _)| ListenKey::Fallback(*number))
    }
}

impl fmt::Debug for Fallbacks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Fallbacks").field(&self.by_number.len()).finish()
    }
}
