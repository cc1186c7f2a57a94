//! The machine behind a device: its packets, and those for it.

use std::future::{pending, poll_fn};
use std::io;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use mesh_stack::{PacketBatch, Stack};
use tracing::warn;

use super::Engine;
use crate::device::Device;

/// The device and the batches that go through it.
#[derive(Debug)]
pub(super) struct Machine {
    /// None once it has failed.
    device: Option<Box<dyn Device>>,
    /// Packets of the machine, which are to be sent.
    sent: PacketBatch,
    /// Packets for the machine.
    received: PacketBatch,
}

impl Machine {
    pub(super) fn new(device: Box<dyn Device>) -> Self {
        Self { device: Some(device), sent: PacketBatch::new(), received: PacketBatch::new() }
    }

    /// Gives packets to the programs of the node that wait for them, and all others to the machine.
    pub(super) fn deliver<'p>(
        &mut self,
        stack: &Stack,
        packets: impl IntoIterator<Item = &'p [u8]>,
    ) {
        self.received.clear();
        stack.receive_beside(packets, |packet| self.received.push(packet));
        if let Some(device) = &mut self.device
            && !self.received.is_empty()
        {
            device.send(&self.received);
        }
    }

    /// Waits for packets of the machine, unless there are some.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.sent.is_empty() {
            return Poll::Ready(());
        }
        let Some(device) = &mut self.device else { return Poll::Pending };
        device.poll_receive(&mut self.sent, cx).map(|received| self.note(received))
    }

    fn note(&mut self, received: io::Result<()>) {
        if let Err(error) = received {
            warn!(
                error = &error as &dyn std::error::Error,
                "device has failed; the node goes on without"
            );
            self.device = None;
        }
    }
}

/// Waits until the machine has packets to send, forever if there is no device. Safe to cancel.
pub(super) async fn readable(machine: Option<&mut Machine>) {
    match machine {
        Some(machine) => poll_fn(|cx| machine.poll_readable(cx)).await,
        None => pending().await,
    }
}

impl Engine {
    /// Sends packets of the machine, if there are some.
    pub(super) fn send_of_machine(&mut self) {
        let Self { machine: Some(machine), core, sockets, .. } = self else { return };
        // The task is woken by the next wait.
        if machine.poll_readable(&mut Context::from_waker(Waker::noop())).is_ready() {
            let (port, now) = (sockets.port(), Instant::now());
            machine.sent.packets().for_each(|packet| core.send_of_machine(packet, port, now));
            machine.sent.clear();
        }
    }
}
