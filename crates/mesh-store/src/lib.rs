//! The one writer task around the state.
