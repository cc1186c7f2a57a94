//! What a viewer must be told: full maps and deltas.
