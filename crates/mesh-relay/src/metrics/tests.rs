use mesh_derp::Batch;

use super::*;

#[test]
fn counters_are_shown_as_they_stand() {
    let stats = Arc::<RelayStats>::default();
    let mut registry = Registry::default();
    register(stats.clone(), &mut registry);
    stats.clients.store(5, Ordering::Relaxed);
    stats.home_clients.store(3, Ordering::Relaxed);
    stats.logins_refused.store(2, Ordering::Relaxed);
    stats.refuse(Refusal::WebSocket);
    let mut batch = Batch::default();
    batch[PacketKind::Data as usize].add(1000);
    batch[PacketKind::Data as usize].add(400);
    stats.received.add(&batch);
    stats.forwarded.add(&batch);
    stats.mesh_peers.store(2, Ordering::Relaxed);
    stats.dropped(DropReason::QueueFull).add(&batch);

    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("a text takes all");
    for line in [
        "derp_connections_total 0",
        r#"derp_clients{home="false"} 2"#,
        r#"derp_clients{home="true"} 3"#,
        r#"derp_logins_total{result="refused"} 2"#,
        r#"derp_bytes_total{direction="received",kind="data"} 1400"#,
        r#"derp_packets_total{direction="sent",kind="disco"} 0"#,
        r#"derp_dropped_packets_total{reason="queue_full",kind="data"} 2"#,
        r#"derp_refused_connections_total{reason="websocket"} 1"#,
        r#"derp_refused_connections_total{reason="displaced"} 0"#,
        "derp_mesh_peers 2",
        r#"derp_mesh_packets_total{direction="sent",kind="data"} 2"#,
        r#"derp_mesh_packets_total{direction="received",kind="data"} 0"#,
        r#"stun_requests_total{result="ignored"} 0"#,
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} is missing in\n{text}");
    }
}
