//! The only SQL: persists what the node store commits.
