//! The TUN device: packets between the kernel and the node.

use std::fmt;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use mesh_node::{Device, PacketBatch};
use tokio::sync::oneshot;
use tracing::trace;
use tun_rs::{AsyncDevice, DeviceBuilder, DeviceBuilderGuard, VIRTIO_NET_HDR_LEN};

/// Longest read: a run of segments as long as one IP packet may be, and its header.
const READ_BYTES_MAX: usize = VIRTIO_NET_HDR_LEN + (1 << 16);

/// Most packets of a run; a longer one is lost, which needs segments of less than 512 bytes.
const SEGMENTS_MAX: usize = 128;

/// Longest packet: beyond the MTU, should somebody raise it.
const PACKET_BYTES_MAX: usize = 2048;

/// With so many packets, others get their turn.
const PACKETS_AT_ONCE: usize = 64;

/// Reads in one go, before others get their turn.
const READS_AT_ONCE: usize = 64;

/// The device. The kernel gives it runs of segments in one read, where a program sends much.
pub(in crate::daemon) struct Tun {
    device: AsyncDevice,
    run: Box<[u8]>,
    segments: Vec<[u8; PACKET_BYTES_MAX]>,
    lengths: Vec<usize>,
    /// Tells whoever has the other end that the device is gone, when it is dropped.
    _alive: oneshot::Sender<()>,
}

impl fmt::Debug for Tun {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tun").finish_non_exhaustive()
    }
}

impl Tun {
    /// Makes the device, and an interface of this name that is up.
    pub(super) fn open(name: &str, mtu: u16, alive: oneshot::Sender<()>) -> io::Result<Self> {
        let offload = |builder: &mut DeviceBuilderGuard<'_>| {
            builder.offload(true);
        };
        let device = DeviceBuilder::new().name(name).mtu(mtu).with(offload).build_async()?;
        Ok(Self {
            device,
            run: vec![0; READ_BYTES_MAX].into(),
            segments: vec![[0; PACKET_BYTES_MAX]; SEGMENTS_MAX],
            lengths: vec![0; SEGMENTS_MAX],
            _alive: alive,
        })
    }

    /// The number by which the kernel knows the interface.
    pub(super) fn index(&self) -> io::Result<u32> {
        self.device.if_index()
    }

    /// Adds the packets of one read.
    fn read(&mut self, packets: &mut PacketBatch) -> io::Result<()> {
        let Self { device, run, segments, lengths, .. } = self;
        let count = device.try_recv_multiple(run, segments, lengths, 0)?;
        for (segment, length) in segments.iter().zip(lengths).take(count) {
            packets.push(&segment[..*length]);
        }
        Ok(())
    }
}

impl Device for Tun {
    fn poll_receive(
        &mut self,
        packets: &mut PacketBatch,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        for _ in 0..READS_AT_ONCE {
            match self.read(packets) {
                Ok(()) if packets.len() < PACKETS_AT_ONCE => {}
                Ok(()) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !packets.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    ready!(self.device.poll_readable(cx))?;
                }
                // The kernel has said it, and will say it again.
                Err(error) if error.raw_os_error().is_some() => return Poll::Ready(Err(error)),
                Err(error) => trace!(%error, "packet of the machine cannot be read"),
            }
        }
        if packets.is_empty() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, packets: &PacketBatch) {
        // Says that a packet is whole, and its checksum is in it.
        let header = [0; VIRTIO_NET_HDR_LEN];
        for packet in packets.packets() {
            // What the kernel has no room for is lost.
            let slices = [IoSlice::new(&header), IoSlice::new(packet)];
            self.device.try_send_vectored(&slices).ok();
        }
    }
}
