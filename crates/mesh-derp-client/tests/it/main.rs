//! The client against relays on loopback: ours over TLS, and such that mean no good.

mod delivery;
mod hostile;
mod outages;
mod relays;
mod trust;
