//! A network interface through which the machine itself is a node of the tailnet.

use std::fmt::Debug;
use std::io;
use std::task::{Context, Poll};

use mesh_stack::PacketBatch;

/// A network interface, such as a TUN device, or what stands for one: see [`Builder::tun`](crate::Builder::tun).
///
/// Packets are IP packets, whole and with nothing before them. There is no queue between a device and its node, which
/// reads when it has sent what it read before, and writes what the packet filter has just let in. So a device bounds
/// what waits, and drops the rest, as network cards do.
///
/// ```
/// # mesh_testkit::example(async |tailnet| {
/// use std::io;
/// use std::task::{Context, Poll};
///
/// use mesh_node::{Device, Node, PacketBatch};
/// use tokio::sync::mpsc;
///
/// #[derive(Debug)]
/// struct Cable {
///     from_machine: mpsc::Receiver<Vec<u8>>,
///     to_machine: mpsc::Sender<Vec<u8>>,
/// }
///
/// impl Device for Cable {
///     fn poll_receive(&mut self, packets: &mut PacketBatch, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
///         let received = self.from_machine.poll_recv(cx);
///         received.map(|packet| Ok(packets.push(&packet.ok_or(io::ErrorKind::BrokenPipe)?)))
///     }
///
///     fn send(&mut self, packets: &PacketBatch) {
///         for packet in packets.packets() {
///             self.to_machine.try_send(packet.to_vec()).ok();
///         }
///     }
/// }
///
/// let (machine, from_machine) = mpsc::channel(256);
/// let (to_machine, mut received) = mpsc::channel(256);
/// # let url = tailnet.url();
/// let node = Node::builder().control_url(url).auth_key("tskey-auth-...").ephemeral(true);
/// let node = node.tun(Cable { from_machine, to_machine }).build().await?;
/// node.up().await?;
/// # let peer = Node::builder().control_url(url).auth_key("any").ephemeral(true).build().await?;
/// # peer.up().await?;
/// # let peer = peer.listen_packet("100.64.0.2:53".parse()?)?;
/// # let sent = tokio::spawn(async move {
/// #     while peer.send_to(b"hello", "100.64.0.1:53".parse().unwrap()).await.is_ok() {
/// #         tokio::time::sleep(std::time::Duration::from_millis(10)).await;
/// #     }
/// # });
/// let packet = received.recv().await.ok_or("the node has ended")?;
/// assert_eq!(packet[packet.len() - 5..], *b"hello");
/// # drop((machine, sent));
/// # Ok(()) });
/// ```
pub trait Device: Debug + Send + 'static {
    /// Adds packets of the machine, one at least, to `packets`, or wakes the task once there are some. Some dozens at once
    /// keep what surrounds a packet cheap; many more would let others wait.
    ///
    /// # Errors
    /// When there will be none any more. The node goes on without the device.
    fn poll_receive(
        &mut self,
        packets: &mut PacketBatch,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>>;

    /// Gives packets to the machine, in their order. It must not wait: what there is no room for is dropped.
    fn send(&mut self, packets: &PacketBatch);
}

#[cfg(test)]
mod tests;
