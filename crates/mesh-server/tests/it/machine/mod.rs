//! What a client asks inside its channel, and what else comes in through one.

mod attempts;
mod bodies;
mod http2;
mod identity;
mod login;
mod map;
mod register;
mod small;
