//! The node store: one writer task around the state.

mod persist;

pub use persist::{Persist, PersistError};
