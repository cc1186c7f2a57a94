//! The zones that clients answer for themselves.

use mesh_netmap::magic_dns_routes;

/// Checks the zones of a tailnet with these prefixes, none if empty, beside its own domain.
#[track_caller]
fn check(v4: &str, v6: &str, expected: &[impl AsRef<str>]) {
    let routes = magic_dns_routes("tail.example", v4.parse().ok(), v6.parse().ok());
    assert!(routes.values().all(Vec::is_empty), "none of them has name servers");
    let zones: Vec<&str> = routes.keys().map(String::as_str).collect();
    let mut expected: Vec<&str> = expected.iter().map(AsRef::as_ref).collect();
    expected.push("tail.example");
    assert_eq!(zones, expected, "the domain is always among them");
}

#[test]
fn a_tailnet_without_prefixes_has_its_domain_alone() {
    check("", "", &[""; 0]);
}

#[test]
fn prefixes_at_the_edge_of_a_label_are_one_zone() {
    check("10.0.0.0/8", "", &["10.in-addr.arpa"]);
    check("192.168.0.0/16", "", &["168.192.in-addr.arpa"]);
    check("198.51.100.0/24", "", &["100.51.198.in-addr.arpa"]);
    check("192.0.2.7/32", "", &["7.2.0.192.in-addr.arpa"]);
    check("", "fd7a:115c:a1e0::/48", &["0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa"]);
    check("", "fd00::/8", &["d.f.ip6.arpa"]);
}

#[test]
fn other_prefixes_are_several_zones() {
    let mut cgnat: Vec<_> = (64..128).map(|second| format!("{second}.100.in-addr.arpa")).collect();
    cgnat.sort_unstable();
    check("100.64.0.0/10", "", &cgnat);
    check("10.0.0.0/7", "", &["10.in-addr.arpa", "11.in-addr.arpa"]);
    check("192.0.2.0/31", "", &["0.2.0.192.in-addr.arpa", "1.2.0.192.in-addr.arpa"]);
    check("", "fc00::/7", &["c.f.ip6.arpa", "d.f.ip6.arpa"]);
    check(
        "",
        "fd7a:8000::/17",
        &["8", "9", "a", "b", "c", "d", "e", "f"]
            .map(|nibble| format!("{nibble}.a.7.d.f.ip6.arpa")),
    );
}

#[test]
fn the_whole_address_space_is_cut_by_its_first_label() {
    let routes = magic_dns_routes("tail.example", "0.0.0.0/0".parse().ok(), None);
    assert_eq!(routes.len(), 256 + 1);
}

#[test]
fn both_families_have_their_zones() {
    check("10.0.0.0/8", "fd00::/8", &["10.in-addr.arpa", "d.f.ip6.arpa"]);
}
