//! Userspace TCP and UDP: packets on one side, async sockets on the other.
//!
//! Whoever decrypts packets gives them to [`Stack::receive`] and takes what is to be sent from [`Outgoing`];
//! programs use [`TcpListener`], [`TcpStream`], [`UdpListener`], [`UdpStream`] and [`UdpSocket`], which behave as the
//! operating system's do.
//! There is no task and no queue between a program and a connection: reads and writes copy straight from and
//! to the connection's buffers under one short lock, and packets are made only when [`Outgoing`] is asked for
//! them, so that a slow way out slows the writers down instead of filling a queue.
//!
//! Left to others: which packets may come in at all (the packet filter), names, IP fragments (dropped), and
//! packets from the stack to itself (they leave like all others).

mod batch;
mod config;
mod connection;
mod connections;
mod device;
mod fallback;
mod inner;
mod listen;
mod memory;
mod outgoing;
mod packet;
mod ping;
mod stack;
mod stream;
mod tcp;
mod time_wait;
mod udp;

pub use batch::PacketBatch;
pub use config::Config;
pub use listen::{BindError, Network, TcpListener};
pub use outgoing::Outgoing;
pub use stack::Stack;
pub use stream::TcpStream;
pub use udp::{UdpListener, UdpSocket, UdpStream};

#[cfg(test)]
mod tests;
