use super::*;

const OK: Answer = Ok(Duration::from_millis(7));

fn node() -> DerpNode {
    DerpNode {
        name: "900a".to_owned(),
        host_name: "derp.example.com".to_owned(),
        ..DerpNode::default()
    }
}

fn way(family: Family, relay: Answer, stun: Answer) -> Way {
    let address = match family {
        Family::V4 => "192.0.2.1",
        Family::V6 => "2001:db8::1",
    };
    let place = Place::At(address.parse().expect("an address"));
    Way { family, place, relay: Some(relay), stun: Some(stun) }
}

/// Good answers but for those that are given, of relay and STUN over each family.
fn probe(v4: [Answer; 2], v6: [Answer; 2]) -> Probe {
    let ([relay4, stun4], [relay6, stun6]) = (v4, v6);
    let ways = [way(Family::V4, relay4, stun4), way(Family::V6, relay6, stun6)];
    Probe { ways, login: Login::Admitted, port_80: None }
}

fn check(node: &DerpNode, probe: &Probe, expected: &[(Severity, &str)]) {
    let findings = judge(node, probe);
    let found: Vec<_> =
        findings.iter().map(|found| (found.severity, found.what.as_str())).collect();
    assert_eq!(found, expected);
    let unfixed =
        findings.iter().find(|found| found.fix.is_none() && found.severity > Severity::Note);
    assert_eq!(unfixed, None, "whatever is wrong has a fix");
    let worst = expected.first().map(|(severity, _)| *severity);
    assert_eq!(is_usable(&findings), worst != Some(Severity::Failure));
}

#[test]
fn a_node_that_answers_everything_is_good() {
    check(&node(), &probe([OK, OK], [OK, OK]), &[]);
}

#[test]
fn one_family_is_enough_and_the_other_is_warned_of() {
    let closed = || Err(Failure::Closed);
    check(
        &node(),
        &probe([OK, OK], [closed(), Err(Failure::Silent)]),
        &[
            (Severity::Warning, "relay over IPv6: the port is closed"),
            (Severity::Warning, "STUN over IPv6: nothing answers in time"),
        ],
    );
    check(
        &node(),
        &probe([closed(), OK], [closed(), OK]),
        &[(Severity::Failure, "relay over IPv4 and IPv6: the port is closed")],
    );
    check(
        &node(),
        &probe([closed(), OK], [Err(Failure::NotTls), OK]),
        &[
            (Severity::Failure, "relay over IPv4: the port is closed"),
            (Severity::Failure, "relay over IPv6: what answers speaks no TLS"),
        ],
    );
}

#[test]
fn a_family_that_this_machine_lacks_says_nothing_of_the_node() {
    let lacking = || Err(Failure::NoRoute);
    check(
        &node(),
        &probe([OK, OK], [lacking(), lacking()]),
        &[
            (Severity::Note, "relay over IPv6: this machine cannot send there"),
            (Severity::Note, "STUN over IPv6: this machine cannot send there"),
        ],
    );
    let neither = probe([lacking(), OK], [lacking(), OK]);
    check(
        &node(),
        &neither,
        &[(Severity::Warning, "relay over IPv4 and IPv6: this machine cannot send there")],
    );
}

#[test]
fn dead_stun_is_a_failure_with_its_port() {
    let silent = || Err(Failure::Silent);
    let probe = probe([OK, silent()], [OK, silent()]);
    check(
        &node(),
        &probe,
        &[(Severity::Failure, "STUN over IPv4 and IPv6: nothing answers in time")],
    );
    let fix = judge(&node(), &probe)[0].fix.clone().expect("a fix");
    assert!(fix.contains("UDP port 3478") && fix.contains("stunport: -1"), "{fix}");
    let another = DerpNode { stun_port: 4000, ..node() };
    let fix = judge(&another, &probe)[0].fix.clone().expect("a fix");
    assert!(fix.contains("UDP port 4000"), "{fix}");
}

#[test]
fn a_relay_that_verifies_its_clients_is_told_and_good() {
    let refused = Probe { login: Login::Refused, ..probe([OK, OK], [OK, OK]) };
    let findings = judge(&node(), &refused);
    assert_eq!(findings.iter().map(|found| found.severity).collect::<Vec<_>>(), [Severity::Note]);
    let failure = Failure::Login("relay answered the upgrade with status 404".to_owned());
    let failed = Probe { login: Login::Failed(failure), ..probe([OK, OK], [OK, OK]) };
    check(
        &node(),
        &failed,
        &[(
            Severity::Failure,
            "it does not let a client log in: relay answered the upgrade with status 404",
        )],
    );
}

#[test]
fn a_name_without_an_address_is_a_failure() {
    let nowhere = |family, place| Way { family, place, relay: None, stun: None };
    let unknown = Place::Unknown("no such host".to_owned());
    let ways = [nowhere(Family::V4, unknown), nowhere(Family::V6, Place::Disabled)];
    let probe = Probe { ways, login: Login::Untried, port_80: None };
    check(&node(), &probe, &[(Severity::Failure, "derp.example.com has no address: no such host")]);
}

#[test]
fn what_only_some_clients_miss_is_a_warning() {
    let portal = Err(Failure::Portal("status 301".to_owned()));
    let probe = Probe { port_80: Some(portal), ..probe([OK, OK], [OK, OK]) };
    let node = DerpNode { can_port_80: true, insecure_for_tests: true, ..node() };
    check(
        &node,
        &probe,
        &[
            (
                Severity::Warning,
                "port 80: it answers with status 301 instead of 204 and the client's challenge",
            ),
            (Severity::Warning, "insecurefortests: anybody on the way can pass for this relay"),
        ],
    );
}

#[test]
fn nodes_that_do_not_reach_each_other_fail_their_region() {
    let nodes = [node(), node()];
    assert_eq!(judge_mesh(&nodes, Some(&[])), []);
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let findings = judge_mesh(&nodes, Some(&[pair("900a", "900b"), pair("900b", "900a")]));
    assert_eq!(findings[0].what, "packets do not pass from 900a to 900b, 900b to 900a");
    assert!(!is_usable(&findings));
}

#[test]
fn nodes_that_could_not_be_tried_are_told_and_one_alone_is_not() {
    let stun_only = DerpNode { stun_only: true, ..node() };
    assert_eq!(judge_mesh(&[node(), stun_only], None), []);
    let findings = judge_mesh(&[node(), node()], None);
    assert_eq!(findings[0].severity, Severity::Note);
}
