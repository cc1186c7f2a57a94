use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::ensure;
use mesh_node::{Network, PingKind};
use mesh_testkit::{Tailnet, example};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::*;

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The variable that says that the test is where it disturbs nobody.
const IN_NAMESPACE: &str = "MESHNODE_TEST_IN_NAMESPACE";

/// The interface's name.
const NAME: &str = "meshtest0";

/// The type of the messages that change and remove an interface.
const NEW_LINK: u16 = 16;
const REMOVE_LINK: u16 = 17;

fn net(text: &str) -> IpNet {
    text.parse().expect("a net")
}

#[test]
fn addresses_of_tailnets_bring_their_range_and_others_are_alone() {
    let check = |address: &str, expected| {
        assert_eq!(with_range(address.parse().expect("an address")), net(expected));
    };
    check("100.64.0.1", "100.64.0.1/10");
    check("100.127.255.254", "100.127.255.254/10");
    check("fd7a:115c:a1e0::1", "fd7a:115c:a1e0::1/48");
    check("192.0.2.1", "192.0.2.1/32");
    check("100.128.0.1", "100.128.0.1/32");
    check("fd00::1", "fd00::1/128");
}

#[test]
fn subnets_of_a_peer_are_what_is_neither_itself_nor_everything() {
    let allowed = ["100.64.0.2/32", "192.0.2.0/24", "0.0.0.0/0", "::/0", "2001:db8::/32"];
    let peer = mesh_wire::Node {
        id: NodeId(2),
        addresses: vec![net("100.64.0.2/32")],
        allowed_ips: Some(allowed.map(net).to_vec()),
        ..mesh_wire::Node::default()
    };
    assert_eq!(routed_by(&peer), (NodeId(2), vec![net("192.0.2.0/24"), net("2001:db8::/32")]));
}

#[test]
fn whoever_may_not_make_an_interface_is_told_what_to_do() {
    let told = |errno: Errno| format!("{:#}", what_to_do("mesh0", errno.into()));
    for errno in [Errno::PERM, Errno::ACCESS] {
        assert!(told(errno).contains("CAP_NET_ADMIN"), "{}", told(errno));
    }
    for errno in [Errno::NOENT, Errno::NODEV] {
        assert!(told(errno).contains("modprobe tun"), "{}", told(errno));
    }
    assert!(told(Errno::BUSY).contains("--tun=NAME"), "{}", told(Errno::BUSY));
    assert!(told(Errno::INVAL).contains("mesh0: "), "{}", told(Errno::INVAL));
}

/// Runs itself again in a network namespace of its own, where it disturbs nobody. A machine that gives no right to make one
/// gives none to make an interface, and says so.
#[test]
fn machine_is_in_the_tailnet_through_its_interface() {
    if std::env::var_os(IN_NAMESPACE).is_some() {
        return check_interface();
    }
    let is_root = rustix::process::geteuid().is_root();
    let namespaces: &[&str] = if is_root { &["--net"] } else { &["--net", "--map-root-user"] };
    let unshare = |program: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(namespaces).args(program).env(IN_NAMESPACE, "1").stdin(Stdio::null());
        command.output()
    };
    let can_open = r"exec 3<>/dev/net/tun";
    let has_right = unshare(&["sh", "-c", can_open]).is_ok_and(|output| output.status.success());
    if !has_right {
        if let Err(error) = runtime().block_on(async { Interface::open(NAME).map(drop) }) {
            assert!(error.to_string().contains(NAME), "{error:#}");
        }
        return;
    }
    let own = std::env::current_exe().expect("the tests");
    let own = own.to_str().expect("a path of plain letters");
    let test = concat!(module_path!(), "::machine_is_in_the_tailnet_through_its_interface");
    let test = test.split_once("::").expect("the crate's name comes first").1;
    let output = unshare(&[own, "--exact", test, "--nocapture"]).expect("it has run");
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(output.status.success() && said[0].contains("1 passed"), "{}", said.concat());
}

fn check_interface() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let interfaces = std::fs::read_to_string("/proc/self/net/dev").expect("Linux");
    assert_eq!(interfaces.lines().skip(2).count(), 1, "more than loopback:\n{interfaces}");
    let mut netlink = Netlink::connect().expect("a socket");
    netlink.ask(NEW_LINK, 0, &link(1, 1)).expect("loopback is up");
    example(async |tailnet| {
        let (mut interface, tun) = Interface::open(NAME)?;
        let index = interface.index;
        let node = node(tailnet, "node").accept_routes(true).tun(tun).build().await?;
        let peer = node_beside(tailnet).await?;
        let checked = async {
            node.up().await?;
            check_calls(&node, &peer).await?;
            check_routes(tailnet).await?;
            netlink.ask(REMOVE_LINK, 0, &link(index, 0))?;
            Ok::<_, anyhow::Error>(())
        };
        let followed = async {
            match follow(Some(&mut interface), &node, true).await {
                Ok(never) => match never {},
                Err(error) => Ok(error),
            }
        };
        let ended = async { tokio::try_join!(checked, followed) };
        let ((), error) = Box::pin(timeout(PATIENCE, ended)).await??;
        assert!(error.to_string().contains("taken away"), "{error:#}");
        Ok(())
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn node(tailnet: &Tailnet, name: &str) -> mesh_node::Builder {
    let builder = Node::builder().control_url(tailnet.url()).auth_key("any");
    builder.hostname(name).ephemeral(true)
}

async fn node_beside(tailnet: &Tailnet) -> anyhow::Result<Node> {
    let peer = node(tailnet, "peer").build().await?;
    peer.up().await?;
    Ok(peer)
}

/// The body of a message about an interface, whether it is to be up.
fn link(index: u32, up: u32) -> Vec<u8> {
    [0, index, up, 1].map(u32::to_ne_bytes).concat()
}

/// Connects from the machine, as soon as it can.
async fn connect(to: (IpAddr, u16)) -> TcpStream {
    loop {
        match TcpStream::connect(to).await {
            Ok(stream) => return stream,
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Sends bytes one way; whoever listens sends them back.
async fn check_echo(
    client: impl AsyncRead + tokio::io::AsyncWrite,
    server: impl AsyncRead + tokio::io::AsyncWrite,
) -> anyhow::Result<()> {
    let sent: Vec<u8> = (0..500_000_usize).map(|index| index.to_le_bytes()[1]).collect();
    let (mut received, (mut reader, mut writer)) = (Vec::new(), tokio::io::split(client));
    let (mut from, mut to) = tokio::io::split(server);
    let write = async {
        writer.write_all(&sent).await?;
        writer.shutdown().await
    };
    let echo = async {
        tokio::io::copy(&mut from, &mut to).await?;
        to.shutdown().await
    };
    tokio::try_join!(write, echo, reader.read_to_end(&mut received))?;
    ensure!(received == sent, "other bytes came back");
    Ok(())
}

/// Machine and peer reach each other, in both families.
async fn check_calls(node: &Node, peer: &Node) -> anyhow::Result<()> {
    for (own, other) in node.ips().into_iter().zip(peer.ips()) {
        let mut served = peer.listen_on(Network::Tcp, Some(other), 80)?;
        let called = connect((other, 80)).await;
        check_echo(called, served.accept().await?.0).await?;
        peer.ping(own, PingKind::Icmp).await?;
        let machine = TcpListener::bind((own, 80)).await?;
        let address = SocketAddr::new(own, 80).to_string();
        let (called, served) = tokio::join!(peer.dial(&address), machine.accept());
        check_echo(called?, served?.0).await?;
    }
    Ok(())
}

/// The machine reaches a subnet for as long as a peer routes it.
async fn check_routes(tailnet: &Tailnet) -> anyhow::Result<()> {
    let subnets = [("192.0.2.0/24", "192.0.2.7"), ("2001:db8::/64", "2001:db8::7")];
    let router = node(tailnet, "router").advertise_routes(subnets.map(|(subnet, _)| net(subnet)));
    let router = router.build().await?;
    router.up().await?;
    for (_, host) in subnets {
        let host = host.parse()?;
        let mut served = router.listen_on(Network::Tcp, Some(host), 80)?;
        let called = connect((host, 80)).await;
        check_echo(called, served.accept().await?.0).await?;
    }
    router.logout().await?;
    for (_, host) in subnets {
        let host: IpAddr = host.parse()?;
        let is_gone = async {
            loop {
                // A call that is under way when the route goes is not told.
                let called = timeout(Duration::from_millis(50), TcpStream::connect((host, 80)));
                let refused = called.await.is_ok_and(|called| {
                    called.is_err_and(|error| error.kind() == io::ErrorKind::NetworkUnreachable)
                });
                if refused {
                    return;
                }
            }
        };
        timeout(PATIENCE, is_gone).await?;
    }
    Ok(())
}
