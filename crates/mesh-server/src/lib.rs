//! HTTP: the client protocol inside Noise, the admin API outside.
