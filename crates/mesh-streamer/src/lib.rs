//! Map streams: one cursor per open stream, frames encoded once.
