//! What strangers can call, and what they can do to the listener.

mod bootstrap_dns;
mod connections;
mod health;
mod key;
mod register_page;
mod ts2021;
mod verify;
mod websocket;
mod well_known;
