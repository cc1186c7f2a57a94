use std::sync::Arc;

use mesh_stack::{Config, Network, PacketBatch};
use mesh_wire::Hostinfo;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::WhoIs;

const PEER: [u8; 4] = [100, 64, 0, 1];

/// A peer whose HTTP server is at this port, if it has one.
fn peer(port: Option<u16>) -> Node {
    let service =
        |port| Service { proto: Service::PEER_API_4.to_owned(), port, ..Service::default() };
    let services = port.map(service).into_iter().collect();
    Node {
        addresses: vec![IpAddr::from(PEER).into()],
        hostinfo: Some(Arc::new(Hostinfo { services, ..Hostinfo::default() })),
        ..Node::default()
    }
}

/// Pings a peer, which is at the other end of a stack that has one end, and answers with a text.
async fn ping(peer: Option<Node>, answer: &'static str) -> Result<Pong, NodeError> {
    let (stack, mut outgoing) = Stack::new(&Config::default()).expect("a stack");
    stack.set_addresses(&[PEER.into()]);
    let (back, mut listener) = (stack.clone(), stack.listen_tcp(Network::Tcp, None, 80));
    let wire = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut batch = PacketBatch::new();
        loop {
            outgoing.next_batch(&mut batch).await;
            back.receive(batch.packets());
        }
    }));
    let server = AbortOnDropHandle::new(tokio::spawn(async move {
        let listener = listener.as_mut().expect("a free port");
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = [0; 512];
        let length = stream.read(&mut request).await.expect("a request");
        assert!(request[..length].starts_with(b"HEAD / HTTP/1.1\r\nHost: 100.64.0.1:80\r\n"));
        stream.write_all(answer.as_bytes()).await.expect("somebody who listens");
    }));
    let (requests, mut asked) = mpsc::channel(1);
    let pinger = Pinger { stack, requests };
    let (pong, ()) = tokio::join!(pinger.ping(PEER.into(), PingKind::PeerApi), async {
        let Some(Request::WhoIs(_, answer)) = asked.recv().await else { panic!("who is it?") };
        let who = peer.map(|node| WhoIs { node, user_profile: None, cap_map: [].into() });
        answer.send(who).expect("somebody waits");
    });
    drop((wire, server));
    pong
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_is_lost_is_sent_once_more() {
    let (stack, _outgoing) = Stack::new(&Config::default()).expect("a stack");
    let (requests, mut asked) = mpsc::channel(1);
    let pinger = Pinger { stack, requests };
    let expected = Pong { latency: Duration::from_millis(3), direct: None, relay: None };
    let answered = async move { pinger.ping(PEER.into(), PingKind::Disco).await };
    let (pong, ()) = tokio::join!(answered, async {
        let mut lost = Vec::new();
        for _ in 0..3 {
            let Some(Request::PingDisco(_, answer)) = asked.recv().await else { panic!("a ping") };
            lost.push(answer);
        }
        lost.swap_remove(1).send(expected).expect("somebody waits");
        assert!(asked.recv().await.is_none(), "an answered ping is not sent again");
    });
    assert_eq!(pong.expect("a pong"), expected);
}

#[tokio::test]
async fn a_peer_api_that_answers_is_a_pong() {
    let pong = ping(Some(peer(Some(80))), "HTTP/1.1 200 OK\r\n\r\n").await.expect("a pong");
    assert_eq!((pong.direct, pong.relay), (None, None));
}

#[tokio::test]
async fn a_peer_api_that_refuses_or_is_none_is_no_pong() {
    let refused = ping(Some(peer(Some(80))), "HTTP/1.1 403 Forbidden\r\n\r\n").await;
    assert!(matches!(refused, Err(NodeError::Connect(..))), "{refused:?}");
    let closed = ping(Some(peer(Some(81))), "").await;
    assert!(matches!(closed, Err(NodeError::Connect(..))), "{closed:?}");
    assert!(matches!(ping(Some(peer(None)), "").await, Err(NodeError::NoAnswer(_))));
    assert!(matches!(ping(None, "").await, Err(NodeError::NoPeer(_))));
}
