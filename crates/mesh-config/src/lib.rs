//! YAML and environment to a validated configuration.
