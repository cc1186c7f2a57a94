//! Nodes of a tailnet, one of which has a machine behind a device. The machine is a stack of its own.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mesh_stack::{Config, Network, Outgoing, Stack, TcpListener};
use mesh_testkit::{Tailnet, example};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::builder::Builder;
use crate::{Node, PingKind};

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A device with a machine behind it.
#[derive(Debug)]
struct Cable {
    stack: Stack,
    outgoing: Outgoing,
}

impl Device for Cable {
    fn poll_receive(
        &mut self,
        packets: &mut PacketBatch,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.outgoing.poll_batch(packets, cx).map(Ok)
    }

    fn send(&mut self, packets: &PacketBatch) {
        self.stack.receive(packets.packets());
    }
}

/// A device that passes packets on as they are.
#[derive(Debug)]
struct Pipe {
    of_machine: mpsc::Receiver<Vec<u8>>,
    to_machine: mpsc::Sender<Vec<u8>>,
}

impl Device for Pipe {
    fn poll_receive(
        &mut self,
        packets: &mut PacketBatch,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.of_machine.poll_recv(cx).map(|packet| {
            packets.push(&packet.ok_or(io::ErrorKind::BrokenPipe)?);
            Ok(())
        })
    }

    fn send(&mut self, packets: &PacketBatch) {
        for packet in packets.packets() {
            self.to_machine.try_send(packet.to_vec()).ok();
        }
    }
}

fn builder(tailnet: &Tailnet, name: &str) -> Builder {
    let builder = Node::builder().control_url(tailnet.url()).auth_key("any");
    builder.hostname(name).ephemeral(true)
}

/// A machine, and a device to it.
fn machine() -> Result<(Stack, Cable), Box<dyn Error>> {
    let (stack, outgoing) = Stack::new(&Config::default())?;
    Ok((stack.clone(), Cable { stack, outgoing }))
}

/// A node with a machine, and its peer; both are up.
async fn pair(tailnet: &Tailnet) -> Result<(Node, Stack, Node), Box<dyn Error>> {
    let (machine, cable) = machine()?;
    let node = builder(tailnet, "node").tun(cable).build().await?;
    node.up().await?;
    machine.set_addresses(&node.ips());
    let peer = up_beside(tailnet, &node).await?;
    Ok((node, machine, peer))
}

/// A peer that knows the node and is known by it.
async fn up_beside(tailnet: &Tailnet, node: &Node) -> Result<Node, Box<dyn Error>> {
    let peer = builder(tailnet, "peer").build().await?;
    peer.up().await?;
    for (from, to) in [(&peer, node), (node, &peer)] {
        while from.ping(to.ips()[0], PingKind::Disco).await.is_err() {}
    }
    Ok(peer)
}

fn listen(stack: &Stack, port: u16) -> Result<TcpListener, Box<dyn Error>> {
    Ok(stack.listen_tcp(Network::Tcp, None, port)?)
}

/// Answers the first caller with a text.
async fn answer(mut listener: TcpListener, text: &str) -> io::Result<()> {
    listener.accept().await?.0.write_all(text.as_bytes()).await
}

async fn read(mut stream: impl tokio::io::AsyncRead + Unpin) -> io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.map(|_| text)
}

fn at(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}

#[test]
fn peer_reaches_the_program_where_it_listens_and_the_machine_elsewhere() {
    example(async |tailnet| {
        let (node, machine, peer) = pair(tailnet).await?;
        let served = async {
            let (program, other) = (node.listen(80)?, listen(&machine, 80)?);
            let ssh = listen(&machine, 22)?;
            tokio::try_join!(answer(program, "program"), answer(ssh, "machine"))?;
            drop(other);
            Ok::<_, Box<dyn Error>>(())
        };
        let called = async {
            for ip in node.ips() {
                let _: Duration = peer.ping(ip, PingKind::Icmp).await?.latency;
            }
            assert_eq!(read(peer.dial("node:80").await?).await?, "program");
            assert_eq!(read(peer.dial("node:22").await?).await?, "machine");
            Ok::<_, Box<dyn Error>>(())
        };
        timeout(PATIENCE, async { tokio::try_join!(served, called) }).await??;
        Ok(())
    });
}

#[test]
fn machine_and_program_both_call_peers() {
    example(async |tailnet| {
        let (node, machine, peer) = pair(tailnet).await?;
        for ip in peer.ips() {
            let latency = timeout(PATIENCE, machine.ping(ip)).await??;
            assert!(latency > Duration::ZERO);
            let calls = async {
                let called = machine.connect_tcp(None, SocketAddr::new(ip, 80)).await?;
                assert_eq!(read(called).await?, "to the machine");
                assert_eq!(read(node.dial(&at(ip, 81)).await?).await?, "to the program");
                Ok::<_, Box<dyn Error>>(())
            };
            let served = async {
                let listeners = (peer.listen(80)?, peer.listen(81)?);
                answer(listeners.0, "to the machine").await?;
                Ok(answer(listeners.1, "to the program").await?)
            };
            timeout(PATIENCE, async { tokio::try_join!(calls, served) }).await??;
        }
        Ok(())
    });
}

#[test]
fn many_bytes_cross_a_device_both_ways() {
    const BYTES: usize = 2_000_000;
    example(async |tailnet| {
        let (node, machine, peer) = pair(tailnet).await?;
        let mut listener = listen(&machine, 80)?;
        let echo = async {
            let (mut reader, mut writer) = tokio::io::split(listener.accept().await?.0);
            tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await
        };
        let sent: Vec<u8> = (0..BYTES).map(|index| index.to_le_bytes()[1]).collect();
        let called = async {
            let (mut reader, mut writer) =
                tokio::io::split(peer.dial(&at(node.ips()[0], 80)).await?);
            let mut received = Vec::new();
            let write = async {
                writer.write_all(&sent).await?;
                writer.shutdown().await
            };
            tokio::try_join!(write, reader.read_to_end(&mut received))?;
            assert!(received == sent);
            Ok::<_, Box<dyn Error>>(())
        };
        let (echoed, called) = timeout(PATIENCE, async { tokio::join!(echo, called) }).await?;
        echoed?;
        called
    });
}

#[test]
fn machine_behind_shields_calls_and_is_not_called() {
    example(async |tailnet| {
        let (machine, cable) = machine()?;
        let node = builder(tailnet, "node").tun(cable).shields_up(true).build().await?;
        node.up().await?;
        machine.set_addresses(&node.ips());
        let peer = up_beside(tailnet, &node).await?;
        let (_program, _ssh) = (node.listen(80)?, listen(&machine, 22)?);
        for port in [22, 80] {
            let called = timeout(Duration::from_secs(1), peer.dial(&at(node.ips()[0], port))).await;
            assert!(called.is_err());
        }
        timeout(PATIENCE, machine.ping(peer.ips()[0])).await??;
        Ok(())
    });
}

/// A UDP datagram without checksum in an IPv4 packet.
fn datagram(source: [u8; 4], source_port: u16, destination: IpAddr, payload: u8) -> Vec<u8> {
    let IpAddr::V4(destination) = destination else { unreachable!("all is IPv4") };
    let mut packet = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(source.into_iter().chain(destination.octets()));
    let sum = packet.as_chunks().0.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let sum: u32 = sum;
    let checksum = !u16::try_from(sum % 0xffff).expect("16 bits");
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    for number in [source_port, 9, 9, 0] {
        packet.extend(number.to_be_bytes());
    }
    packet.push(payload);
    packet
}

#[test]
fn only_the_nodes_own_sources_and_served_routes_leave_a_device() {
    example(async |tailnet| {
        let (sender, of_machine) = mpsc::channel(16);
        let (to_machine, mut received) = mpsc::channel(16);
        let route = "192.0.2.0/24".parse()?;
        let node = builder(tailnet, "node").advertise_routes([route]);
        let node = node.tun(Pipe { of_machine, to_machine }).build().await?;
        node.up().await?;
        let peer = builder(tailnet, "peer").accept_routes(true).build().await?;
        peer.up().await?;
        while peer.ping(node.ips()[0], PingKind::Tsmp).await.is_err() {}
        let to = peer.ips()[0];
        let socket = peer.listen_packet(SocketAddr::new(to, 9))?;
        let own = [100, 64, 0, 1];
        let sources = [[198, 51, 100, 1], [100, 64, 0, 3], own, [100, 64, 0, 2], [192, 0, 2, 7]];
        for (source, payload) in sources.into_iter().zip(0..) {
            sender.send(datagram(source, 4000, to, payload)).await?;
        }
        sender.send(vec![0x45]).await?;
        for expected in [(own, 2), ([192, 0, 2, 7], 4)] {
            let mut payload = [0];
            let (_, from) = timeout(PATIENCE, socket.recv_from(&mut payload)).await??;
            assert_eq!((from, payload), (SocketAddr::from((expected.0, 4000)), [expected.1]));
        }
        // The machine is told of what nobody here waits for, as it was sent.
        socket.send_to(b"!", SocketAddr::from((own, 4000))).await?;
        let packet = timeout(PATIENCE, received.recv()).await?.ok_or("the device is gone")?;
        assert_eq!(packet[12..16], [100, 64, 0, 2]);
        assert_eq!(packet.last(), Some(&b'!'));
        Ok(())
    });
}

#[test]
fn node_goes_on_without_a_device_that_has_failed() {
    example(async |tailnet| {
        let (of_machine, to_machine) = (mpsc::channel(1).1, mpsc::channel(1).0);
        let node = builder(tailnet, "node").tun(Pipe { of_machine, to_machine }).build().await?;
        node.up().await?;
        let peer = up_beside(tailnet, &node).await?;
        let served = answer(node.listen(80)?, "still there");
        let called = async { read(peer.dial("node:80").await.map_err(io::Error::other)?).await };
        let ((), text) = timeout(PATIENCE, async { tokio::try_join!(served, called) }).await??;
        assert_eq!(text, "still there");
        Ok(())
    });
}
