//! Sentences about netmaps, and the law: what a viewer was told adds up to the full netmap.

mod house;
mod viewer;

mod context;
mod full;
mod gone;
mod law;
mod own;
mod peers;
mod policy;
