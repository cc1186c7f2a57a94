//! The filter against a naive one: every rule is asked, in its text, about every packet.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::flows::FLOW_IDLE;

/// What happens to a filter.
#[derive(Debug, Clone)]
enum Step {
    Set(&'static str, Vec<FilterRule>),
    Remove(&'static str),
    Clear,
    SetLocals(Vec<IpNet>),
    Passed(Duration),
    Sent(Packet),
    Came(Packet),
    /// One of the packets sent or come so far comes again, or comes back.
    Again(Index, bool),
}

/// All that decides about a packet, as it was said.
#[derive(Default)]
struct Naive {
    locals: Vec<IpNet>,
    chunks: BTreeMap<&'static str, Vec<FilterRule>>,
    flows: Vec<(Packet, Instant)>,
}

impl Naive {
    fn check(&mut self, packet: &Packet, now: Instant) -> bool {
        let (source, destination) = (packet.source.ip(), packet.destination.ip());
        self.locals.iter().any(|net| net.contains(&destination))
            && (self.answers(packet, now)
                || self.chunks.values().flatten().any(|rule| {
                    has_source(rule, source)
                        && rule
                            .dst_ports
                            .iter()
                            .any(|to| names(&to.ip, destination) && opens(rule, to.ports, packet))
                }))
    }

    /// Whether a packet needs no rule.
    fn answers(&mut self, packet: &Packet, now: Instant) -> bool {
        let question = reverse(*packet);
        let flow = self.flows.iter_mut().find(|(sent, _)| *sent == question);
        let open = flow.filter(|(_, used_at)| now.duration_since(*used_at) <= FLOW_IDLE);
        let is_answer = open.map(|(_, used_at)| *used_at = now).is_some();
        match packet.transport {
            Transport::Tcp { is_syn } => !is_syn,
            Transport::Icmp(Icmp::Other) | Transport::Other(_) => false,
            Transport::Icmp(_) | Transport::Tsmp | Transport::LaterFragment => true,
            Transport::Udp | Transport::Sctp => is_answer,
        }
    }

    fn note(&mut self, packet: &Packet, now: Instant) {
        self.flows.retain(|(sent, _)| sent != packet);
        self.flows.push((*packet, now));
    }

    /// Every value of every capability, in no order.
    fn capabilities(&self, packet: &Packet) -> Vec<String> {
        let (source, destination) = (packet.source.ip(), packet.destination.ip());
        let rules = self.chunks.values().flatten().filter(|rule| has_source(rule, source));
        let grants = rules.flat_map(|rule| &rule.cap_grant);
        let here = grants.filter(|grant| grant.dsts.iter().any(|net| net.contains(&destination)));
        here.flat_map(|grant| values(&grant.cap_map)).collect()
    }
}

fn reverse(Packet { source, destination, transport }: Packet) -> Packet {
    Packet { source: destination, destination: source, transport }
}

/// Whether a rule whose source and destination fit opens what the packet wants.
fn opens(rule: &FilterRule, ports: PortRange, packet: &Packet) -> bool {
    let has_port = (ports.first..=ports.last).contains(&packet.destination.port());
    let has_protocol = |number: i32| match &rule.ip_proto[..] {
        [] => [1, 6, 17, 58].contains(&number),
        numbers => numbers.contains(&number),
    };
    match packet.transport {
        Transport::Tcp { .. } => has_port && has_protocol(6),
        Transport::Udp => has_port && has_protocol(17),
        Transport::Sctp => has_port && has_protocol(132),
        Transport::Other(number) => ports == PortRange::ANY && has_protocol(number.into()),
        Transport::Icmp(_) | Transport::Tsmp | Transport::LaterFragment => {
            ports.first <= ports.last && (0..256).any(has_protocol)
        }
    }
}

fn has_source(rule: &FilterRule, source: IpAddr) -> bool {
    rule.src_ips.iter().any(|entry| match entry.strip_prefix("cap:") {
        Some(name) => has_capability(source, name),
        None => names(entry, source),
    })
}

/// Which addresses have a node capability: some.
fn has_capability(source: IpAddr, name: &str) -> bool {
    name == "even" && source.to_string().ends_with(['0', '2', '4', '6'])
}

fn names(entry: &str, address: IpAddr) -> bool {
    if let Some((first, last)) = entry.split_once('-') {
        let ends: [IpAddr; 2] = [first, last].map(|end| end.parse().expect("an address"));
        let [first, last] = ends;
        return first.is_ipv4() == last.is_ipv4() && first <= address && address <= last;
    }
    match entry.parse::<IpNet>() {
        Ok(net) => net == net.trunc() && net.contains(&address),
        Err(_) => entry == "*" || entry.parse() == Ok(address),
    }
}

fn values(capabilities: &CapMap) -> Vec<String> {
    let held = |(name, values): (&String, &Option<Vec<_>>)| {
        let values = values.iter().flatten().map(serde_json::to_string);
        values.map(|value| format!("{name}={}", value.expect("json"))).collect::<Vec<_>>()
    };
    capabilities.iter().flat_map(held).collect()
}

/// Few addresses, so that rules and packets meet.
fn address(is_v4: bool, last: u8) -> IpAddr {
    if is_v4 { [10, 0, 0, last].into() } else { [0xfd7a, 0, 0, 0, 0, 0, 0, last.into()].into() }
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    (any::<bool>(), 0..8_u8).prop_map(|(is_v4, last)| address(is_v4, last))
}

fn any_net() -> impl Strategy<Value = IpNet> {
    (any_address(), 0..4_u8).prop_map(|(address, wide)| {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, bits - wide).expect("a prefix length").trunc()
    })
}

/// An entry of a rule, good or bad.
fn entry() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("cap:even"), Just("cap:odd"), Just("cap:"), Just("a")];
    prop_oneof![
        4 => any_address().prop_map(|address| address.to_string()),
        2 => any_net().prop_map(|net| net.to_string()),
        2 => (any_address(), any_address()).prop_map(|(first, last)| format!("{first}-{last}")),
        1 => (any_address(), 28..32_u8).prop_map(|(address, bits)| format!("{address}/{bits}")),
        1 => Just("*".to_owned()),
        1 => name.prop_map(str::to_owned),
    ]
}

fn destination() -> impl Strategy<Value = NetPortRange> {
    let ports = prop_oneof![
        2 => (0..4_u16, 0..4_u16).prop_map(|(first, last)| PortRange { first, last }),
        1 => Just(PortRange::ANY),
    ];
    (entry(), ports).prop_map(|(entry, ports)| NetPortRange { ip: entry.into(), ports })
}

fn any_grant() -> impl Strategy<Value = CapGrant> {
    let values = prop::collection::vec(0..9_i32, 0..3);
    (prop::collection::vec(any_net(), 0..3), "[ab]", values).prop_map(|(dsts, name, values)| {
        let values = values.into_iter().map(|value| serde_json::json!(value).into()).collect();
        CapGrant { dsts, caps: Vec::new(), cap_map: [(name, Some(values))].into() }
    })
}

fn any_rule() -> impl Strategy<Value = FilterRule> {
    let protocol = prop::sample::select(vec![6, 17, 132, 47, 1, 300]);
    let parts = (
        prop::collection::vec(entry(), 0..4),
        prop::collection::vec(destination(), 0..3),
        prop::collection::vec(protocol, 0..3),
        prop::collection::vec(any_grant(), 0..2),
    );
    parts.prop_map(|(sources, dst_ports, ip_proto, cap_grant)| {
        let src_ips = sources.into_iter().map(Into::into).collect();
        FilterRule { src_ips, dst_ports, ip_proto, cap_grant }
    })
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let with_ports = prop_oneof![
        3 => Just(SYN),
        1 => Just(REST),
        6 => Just(Transport::Udp),
        2 => Just(Transport::Sctp),
    ];
    let without = prop::sample::select(vec![
        PING,
        Transport::Icmp(Icmp::Error),
        Transport::LaterFragment,
        Transport::Other(47),
        Transport::Other(1),
    ]);
    let transport = prop_oneof![
        2 => (with_ports, 0..4_u16, 0..4_u16),
        1 => (without, Just(0), Just(0)),
    ];
    (transport, any::<bool>(), 0..8_u8, 0..8_u8).prop_map(
        |((transport, from_port, to_port), is_v4, from, to)| Packet {
            source: SocketAddr::new(address(is_v4, from), from_port),
            destination: SocketAddr::new(address(is_v4, to), to_port),
            transport,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    prop_oneof![
        4 => (name(), prop::collection::vec(any_rule(), 0..4))
            .prop_map(|(name, rules)| Step::Set(name, rules)),
        2 => name().prop_map(Step::Remove),
        1 => Just(Step::Clear),
        1 => prop::collection::vec(any_net(), 0..8).prop_map(Step::SetLocals),
        2 => (0..400_u64).prop_map(|seconds| Step::Passed(Duration::from_secs(seconds))),
        4 => any_packet().prop_map(Step::Sent),
        8 => any_packet().prop_map(Step::Came),
        16 => any::<(Index, bool)>().prop_map(|(which, back)| Step::Again(which, back)),
    ]
}

/// A filter and a naive one that hear the same.
struct Both {
    filter: Filter,
    flows: Flows,
    naive: Naive,
    now: Instant,
    packets: Vec<Packet>,
}

impl Both {
    fn new() -> Self {
        let locals = ["10.0.0.0/24", "fd7a::/64"].map(|net| net.parse().expect("a prefix"));
        Self {
            filter: Filter::new(locals),
            flows: Flows::new(),
            naive: Naive { locals: locals.into(), ..Naive::default() },
            now: Instant::now(),
            packets: Vec::new(),
        }
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Set(name, rules) => {
                self.filter.set(name, &rules);
                self.naive.chunks.insert(name, rules);
            }
            Step::Remove(name) => {
                self.filter.remove(name);
                self.naive.chunks.remove(name);
            }
            Step::Clear => {
                self.filter.clear();
                self.naive.chunks.clear();
            }
            Step::SetLocals(locals) => {
                self.filter.set_locals(locals.iter().copied());
                self.naive.locals = locals;
            }
            Step::Sent(packet) => {
                self.flows.note_outgoing(&packet, self.now);
                self.naive.note(&packet, self.now);
                self.packets.push(packet);
            }
            Step::Passed(time) => self.now += time,
            Step::Came(packet) => {
                self.compare(&packet)?;
                self.packets.push(packet);
            }
            Step::Again(which, back) if !self.packets.is_empty() => {
                let packet = *which.get(&self.packets);
                self.compare(&if back { reverse(packet) } else { packet })?;
            }
            Step::Again(..) => {}
        }
        Ok(())
    }

    fn compare(&mut self, packet: &Packet) -> Result<(), TestCaseError> {
        let Self { filter, flows, naive, now, .. } = self;
        let verdict = filter.check(packet, flows, has_capability, *now);
        prop_assert_eq!(verdict == Verdict::Accept, naive.check(packet, *now), "{:?}", packet);

        let (source, destination) = (packet.source.ip(), packet.destination.ip());
        let granted = filter.capabilities(source, destination, has_capability);
        let [mut granted, mut expected] = [values(&granted), naive.capabilities(packet)];
        granted.sort();
        expected.sort();
        prop_assert_eq!(granted, expected);
        Ok(())
    }
}

proptest! {
    #[test]
    fn filter_judges_like_a_naive_one_whatever_changed(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut both = Both::new();
        for step in steps {
            both.take(step)?;
        }
    }
}
