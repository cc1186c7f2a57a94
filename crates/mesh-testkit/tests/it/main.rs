//! The judges judged.

mod conformance;
