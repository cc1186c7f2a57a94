//! Nodes in a virtual network, and the laws of their paths.

mod laws;
mod world;
