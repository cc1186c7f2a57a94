//! What the engine sends: paced packets, closed loops, pings.

use anyhow::Result;
use mesh_derp::ClientFrame;
use mesh_tls::RecordError;

use super::{Engine, Pinger};
use crate::client::{Client, ClientError, UNSENT_BYTES_MAX};
use crate::stamp::Stamp;
use crate::traffic::{Drive, Flow};

/// How often it is looked whether closed loops go on.
const LOOK_EVERY: u64 = 500_000_000;

/// Packets of a flow that are sealed before they are written.
const PACKETS_PER_WRITE: u64 = 24;

/// Packets of an open loop that are sent in one round. If more are due, it is we who are too slow: the rest is not offered.
const PACKETS_PER_ROUND: u64 = 4 * PACKETS_PER_WRITE;

impl Engine {
    /// Sends what is due by the clock. False if nothing was.
    pub(super) fn send_due(&mut self) -> Result<bool> {
        let (now, mut has_sent) = (self.now(), false);
        for flow in 0..self.traffic.flows.len() {
            let Drive::Paced(pace) = &mut self.traffic.flows[flow].drive else { continue };
            let due = pace.take(now).min(PACKETS_PER_ROUND);
            if due > 0 {
                self.send(flow, due)?;
                self.serve_quiet()?;
                has_sent = true;
            }
        }
        for pinger in 0..self.pingers.len() {
            self.ping(pinger, now)?;
        }
        if now >= self.looked_at + LOOK_EVERY {
            self.looked_at = now;
            for (number, flow) in self.traffic.flows.iter_mut().enumerate() {
                if flow.give_up_if_stuck() {
                    self.traffic.roomy.push(number);
                }
            }
        }
        Ok(has_sent)
    }

    fn ping(&mut self, pinger: usize, now: u64) -> Result<()> {
        let Pinger { client, period, next_at } = &mut self.pingers[pinger];
        if now < *next_at {
            return Ok(());
        }
        *next_at = now + *period;
        let number = *client;
        let client = &mut self.clients[number];
        let Some((records, out)) = client.writer() else { return Ok(()) };
        let frame = ClientFrame::Ping(self.poller.now().to_be_bytes());
        let sealed = records.seal_with(out, |out| frame.encode(out));
        let done = sealed.map_err(ClientError::from).and_then(|()| client.flush());
        self.settle(number, done)
    }

    pub(super) fn fill_windows(&mut self) -> Result<()> {
        let mut roomy = std::mem::take(&mut self.traffic.roomy);
        for flow in roomy.drain(..) {
            let room = self.traffic.flows[flow].room();
            if room > 0 {
                self.send(flow, room)?;
            }
        }
        // What came meanwhile, from quiet clients, has its turn in the next round.
        roomy.append(&mut self.traffic.roomy);
        self.traffic.roomy = roomy;
        Ok(())
    }

    /// Sends packets of a flow, as many of an open loop's as the socket takes.
    fn send(&mut self, number: usize, mut packets: u64) -> Result<()> {
        let from = self.traffic.flows[number].from;
        let mut done = Ok(());
        while packets > 0 && done.is_ok() {
            let client = &mut self.clients[from];
            let flow = &mut self.traffic.flows[number];
            let tally = &mut self.traffic.tallies[flow.lane as usize];
            let held_back =
                matches!(flow.drive, Drive::Paced(_)) && client.unsent_bytes() >= UNSENT_BYTES_MAX;
            if held_back || !client.is_ready() {
                tally.held_back += packets;
                break;
            }
            let some = packets.min(PACKETS_PER_WRITE);
            let sealed = seal(client, flow, number, &mut self.packet, self.poller.now(), some);
            tally.sent += some;
            packets -= some;
            done = sealed.map_err(ClientError::from).and_then(|()| client.flush());
        }
        self.settle(from, done)
    }
}

/// Seals the next packets of a flow, each in a record of its own, as stock clients do.
fn seal(
    client: &mut Client,
    flow: &mut Flow,
    number: usize,
    packet: &mut Vec<u8>,
    sent_at: u64,
    packets: u64,
) -> Result<(), RecordError> {
    let Some((records, out)) = client.writer() else { return Ok(()) };
    packet.resize(flow.bytes, 0x5a);
    let flow_number = u32::try_from(number).expect("invariant: few flows");
    for number in flow.sent..flow.sent + packets {
        Stamp { flow: flow_number, number, sent_at }.write(packet);
        let frame = ClientFrame::SendPacket { dst: flow.dst, payload: packet };
        records.seal_with(out, |out| frame.encode(out))?;
    }
    flow.sent += packets;
    Ok(())
}
