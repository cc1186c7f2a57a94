//! The server as those see it who talk to it.

mod api;
