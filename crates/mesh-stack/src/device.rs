//! The wire as smoltcp sees it: at most one packet comes in, some go out into a batch.

use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use crate::batch::PacketBatch;

/// A device for one call of the interface.
#[derive(Debug)]
pub(crate) struct Wire<'w> {
    /// The packet that comes in.
    pub(crate) incoming: Option<&'w [u8]>,
    /// Where packets go.
    pub(crate) outgoing: &'w mut PacketBatch,
    /// With this many packets in `outgoing`, sockets wait and answers are dropped.
    pub(crate) packets_max: usize,
    /// Longest packet.
    pub(crate) mtu: usize,
}

/// The packet that comes in.
#[derive(Debug)]
pub(crate) struct Received<'w>(&'w [u8]);

/// Room for one packet.
#[derive(Debug)]
pub(crate) struct Room<'w> {
    batch: &'w mut PacketBatch,
    packets_max: usize,
}

impl phy::Device for Wire<'_> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Room<'t>
    where
        Self: 't;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Room<'_>)> {
        let packet = self.incoming.take()?;
        Some((Received(packet), self.room()))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Room<'_>> {
        let has_room = self.outgoing.len() < self.packets_max;
        has_room.then(|| self.room())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

impl Wire<'_> {
    fn room(&mut self) -> Room<'_> {
        Room { batch: self.outgoing, packets_max: self.packets_max }
    }
}

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let result = self.batch.push_with(length, fill);
        if self.batch.len() > self.packets_max {
            self.batch.pop();
        }
        result
    }
}
