use super::*;

const MS: Duration = Duration::from_millis(1);

fn addr(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().expect("an address"), 41_641)
}

fn check(ours: (&str, u32), theirs: (&str, u32), yields: bool) {
    let best = Best::new(addr(ours.0), MS * ours.1, Instant::now());
    assert_eq!(best.yields_to(addr(theirs.0), MS * theirs.1), yields, "{ours:?} to {theirs:?}");
}

#[test]
fn faster_path_is_taken_if_it_is_worth_the_change() {
    check(("1.1.1.1", 100), ("2.2.2.2", 101), false);
    check(("1.1.1.1", 100), ("2.2.2.2", 100), false);
    check(("1.1.1.1", 100), ("2.2.2.2", 99), false);
    check(("1.1.1.1", 100), ("2.2.2.2", 98), true);
    check(("1.1.1.1", 0), ("2.2.2.2", 0), false);
    check(("1.1.1.1", 0), ("2.2.2.2", 1), false);
    check(("1.1.1.1", 1), ("2.2.2.2", 0), true);
}

#[test]
fn nearness_and_ipv6_outweigh_some_latency() {
    check(("1.1.1.1", 100), ("192.168.1.1", 123), true);
    check(("1.1.1.1", 100), ("192.168.1.1", 124), false);
    check(("1.1.1.1", 100), ("2001:db8::1", 109), true);
    check(("1.1.1.1", 100), ("2001:db8::1", 110), false);
    check(("2001:db8::1", 100), ("1.1.1.1", 95), false);
    check(("192.168.1.1", 10), ("10.0.0.1", 10), false);
    check(("192.168.1.1", 10), ("169.254.0.1", 10), true);
    check(("192.168.1.1", 10), ("fd00::1", 10), true);
    check(("fd00::1", 10), ("fe80::1", 10), true);
    check(("fe80::1", 10), ("127.0.0.1", 10), true);
    check(("127.0.0.1", 10), ("::1", 10), true);
}

#[test]
fn no_two_paths_yield_to_each_other() {
    let ips = ["1.1.1.1", "10.0.0.1", "127.0.0.1", "169.254.0.1", "2001:db8::1", "fd00::1", "::1"];
    let latencies = [0, 1, 2, 19, 20, 21, 100, 101, 150, 5_000];
    let paths: Vec<_> = ips.iter().flat_map(|ip| latencies.map(|ms| (addr(ip), MS * ms))).collect();
    for a in &paths {
        for b in &paths {
            let yields = |from: &(SocketAddr, Duration), to: &(SocketAddr, Duration)| {
                Best::new(from.0, from.1, Instant::now()).yields_to(to.0, to.1)
            };
            assert!(!(yields(a, b) && yields(b, a)), "{a:?} {b:?}");
        }
    }
}

#[test]
fn trust_lapses_and_what_does_not_answer_is_lost() {
    let start = Instant::now();
    let mut best = Best::new(addr("1.1.1.1"), MS, start);
    assert!(best.is_trusted(start + MS * 6_499) && !best.is_trusted(start + TRUST));
    assert!(!best.is_lost(start + TRUST * 1000), "nobody asked");
    best.note_ping(start + MS * 3_000);
    best.note_ping(start + MS * 6_000);
    assert!(!best.is_lost(start + MS * 7_999) && best.is_lost(start + MS * 8_000));
    best.doubt(start + MS * 4_000);
    assert!(best.is_trusted(start + MS * 4_999) && !best.is_trusted(start + MS * 5_000));
    best.doubt(start + MS * 6_000);
    assert!(!best.is_trusted(start + MS * 5_000), "doubt never prolongs trust");
    best.distrust(start + MS * 8_000);
    assert!(!best.is_lost(start + MS * 20_000), "it has to be asked again");
}
