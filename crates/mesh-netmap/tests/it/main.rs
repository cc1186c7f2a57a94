//! Sentences about netmaps, and the law: what a viewer was told adds up to the full netmap.

#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else an outcome is, it is wrong")]

mod house;
mod viewer;

mod context;
mod full;
mod gone;
mod law;
mod own;
mod peers;
