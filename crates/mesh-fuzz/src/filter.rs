//! The packet filter: any packet, and any rules.

use std::time::Instant;

use mesh_filter::{BAD_ENTRIES_MAX, Filter, Flows, Packet, Reason, Verdict};
use mesh_wire::{FilterRule, NetPortRange, PortRange};

/// Rules that open everything whose protocol they can name.
fn open() -> FilterRule {
    let to = NetPortRange { ip: "*".into(), ports: PortRange::ANY };
    FilterRule {
        src_ips: ["*".into()].into(),
        dst_ports: vec![to],
        ip_proto: (0..=255).collect(),
        ..FilterRule::default()
    }
}

fn everywhere() -> Filter {
    Filter::new(["0.0.0.0/0", "::/0"].map(|net| net.parse().expect("a prefix")))
}

/// Any bytes as a packet from a peer: rules only add to what comes in, and what was asked for is let in.
pub(crate) fn packet(input: &[u8]) {
    let Ok(packet) = Packet::parse(input) else { return };
    assert_eq!(packet.source.is_ipv4(), packet.destination.is_ipv4(), "two families");
    let now = Instant::now();
    let judge =
        |filter: &mut Filter, flows: &mut Flows| filter.check(&packet, flows, |_, _| false, now);
    let mut flows = Flows::new();
    let closed = judge(&mut everywhere(), &mut flows);
    let mut filter = everywhere();
    assert_eq!(filter.set("base", &[open()]), []);
    let opened = judge(&mut filter, &mut flows);
    assert!(closed == Verdict::Drop(Reason::NoRule) || closed == opened);
    filter.clear();
    assert_eq!(judge(&mut filter, &mut flows), closed, "rules that are gone leave nothing");
    let question = Packet { source: packet.destination, destination: packet.source, ..packet };
    flows.note_outgoing(&question, now);
    let answered = judge(&mut filter, &mut flows);
    assert!(answered == closed || answered == opened);
}

/// Any JSON as the rules of a chunk, asked about a packet of each kind; set again, they say the same.
pub(crate) fn rules(input: &[u8]) {
    let Ok(rules) = serde_json::from_slice::<Vec<FilterRule>>(input) else { return };
    let (mut filter, mut flows, now) = (everywhere(), Flows::new(), Instant::now());
    let told = filter.set("base", &rules);
    assert!(told.len() <= BAD_ENTRIES_MAX);
    let mut other = everywhere();
    other.set("other", &[open()]);
    for protocol in [1, 6, 17, 47, 132] {
        let mut bytes = [0; 60];
        bytes[..4].copy_from_slice(&[0x45, 0, 0, 60]);
        bytes[9] = protocol;
        bytes[12..20].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 1]);
        bytes[20 + 13] = 2;
        let Ok(packet) = Packet::parse(&bytes) else { continue };
        let mut judge = |filter: &mut Filter| filter.check(&packet, &mut flows, |_, _| true, now);
        let before = judge(&mut other);
        other.set("base", &rules);
        assert_eq!(judge(&mut other), Verdict::Accept, "rules take nothing away");
        other.remove("base");
        assert_eq!(judge(&mut other), before);
        let verdict = judge(&mut filter);
        assert_eq!(filter.set("base", &rules), told);
        assert_eq!(judge(&mut filter), verdict);
    }
    let _ = filter.capabilities([10, 0, 0, 2].into(), [10, 0, 0, 1].into(), |_, _| true);
}
