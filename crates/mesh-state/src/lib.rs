//! Commands in, snapshots and change sets out.
