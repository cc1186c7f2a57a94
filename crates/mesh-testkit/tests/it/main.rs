//! The judges judged.

mod conformance;
mod visibility;
