//! Tests of the crate from outside.

mod agreement;
mod compare;
mod conformance;
