//! Control client: dial, register, follow a map stream.
