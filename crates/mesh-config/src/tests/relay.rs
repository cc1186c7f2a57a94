//! The settings of the relay.

use super::{accepted, check_told, source, told};
use crate::{Override, load, settings};

#[test]
fn what_is_said_of_the_relay_is_checked() {
    for (text, expected) in [
        (
            "listen_addr: :8443\n",
            "error: default: derp.server.listen_addr: has the port of listen_addr; the relay needs its \
             own",
        ),
        (
            "derp: {server: {private_key_path: k}}\nnoise: {private_key_path: k}\n",
            "error: /etc/mesh/config.yaml:1:35: derp.server.private_key_path: is \
             noise.private_key_path too; the relay needs a key of its own",
        ),
        (
            "derp: {server: {automatically_add_embedded_derp_region: false}}\n",
            "error: /etc/mesh/config.yaml:1:57: derp.server.automatically_add_embedded_derp_region: \
             is off, so no client would find the relay; describe it in a file of derp.paths",
        ),
        (
            "derp: {server: {tls_key_path: k}}\n",
            "error: /etc/mesh/config.yaml:1:31: derp.server.tls_key_path: is set without \
             derp.server.tls_cert_path; set both",
        ),
        (
            "derp: {server: {http_listen_addr: ':8443'}}\n",
            "error: /etc/mesh/config.yaml:1:35: derp.server.http_listen_addr: has the port of \
             derp.server.listen_addr",
        ),
        (
            "derp: {server: {http_listen_addr: ':8080'}}\n",
            "error: /etc/mesh/config.yaml:1:35: derp.server.http_listen_addr: has the port of \
             listen_addr; the relay needs its own",
        ),
        (
            "derp: {server: {listen_addr: ''}}\n",
            "error: /etc/mesh/config.yaml:1:30: derp.server.listen_addr: is \"\", and server_url is not \
             https://, so no client could reach the relay",
        ),
        (
            "derp: {server: {drain_timeout: 61s}}\n",
            "error: /etc/mesh/config.yaml:1:32: derp.server.drain_timeout: must be 1m or shorter",
        ),
        (
            "derp: {server: {limits: {write_timeout: 0s}}}\n",
            "error: /etc/mesh/config.yaml:1:41: derp.server.limits.write_timeout: must be 500ms to 1m",
        ),
        (
            "derp: {server: {mesh: {with: [a.example.com]}}}\n",
            "error: /etc/mesh/config.yaml:1:30: derp.server.mesh.with: is set without \
             derp.server.mesh.key_path, by which relays know each other",
        ),
        (
            "derp: {server: {enabled: false, verify: {control_socket: s, url: 'http://h/verify'}}}\n",
            "error: /etc/mesh/config.yaml:1:66: derp.server.verify.url: is set beside \
             derp.server.verify.control_socket; choose one of them",
        ),
        (
            "derp: {server: {verify: {url: 'https://h/verify'}}}\n",
            "warning: /etc/mesh/config.yaml:1:31: derp.server.verify.url: is for meshcontrol derp; \
             meshcontrol serve knows its nodes itself",
        ),
        (
            "derp: {server: {enabled: false, verify: {control_url: 'https://h'}}}\n",
            "error: /etc/mesh/config.yaml:1:55: derp.server.verify.control_url: is set without \
             derp.server.verify.api_key_path; set both",
        ),
        (
            "derp: {server: {verify_clients: false, verify: {url: 'https://h/verify'}}}\n",
            "error: /etc/mesh/config.yaml:1:33: derp.server.verify_clients: is false, but \
             derp.server.verify.url names who may use the relay; remove one of them",
        ),
        (
            "derp: {server: {enabled: false, verify: {control_url: 'https://h/mesh', api_key_path: k}}}\n",
            "error: /etc/mesh/config.yaml:1:55: derp.server.verify.control_url: must have no path; the \
             relay knows where the list of nodes is",
        ),
        (
            "derp: {server: {limits: {accept_burst: 9}}}\n",
            "error: /etc/mesh/config.yaml:1:40: derp.server.limits.accept_burst: is set without \
             derp.server.limits.accepts_per_second, beside which it counts; set both",
        ),
        (
            "derp: {server: {limits: {client_burst_bytes: 65568}}}\n",
            "error: /etc/mesh/config.yaml:1:46: derp.server.limits.client_burst_bytes: is set without \
             derp.server.limits.client_bytes_per_second, beside which it counts; set both",
        ),
        (
            "derp: {server: {limits: {client_burst_bytes: 1500}}}\n",
            "error: /etc/mesh/config.yaml:1:46: derp.server.limits.client_burst_bytes: must be 65568 \
             or more",
        ),
    ] {
        check_told(text, expected);
    }
}

/// What is told of who may use a relay by itself, of a file and with flags.
fn told_alone(server: &str, flags: &[(&str, &str, &str)]) -> String {
    let mut source = source(&format!("derp: {{server: {{enabled: false, {server}}}}}\n"), &[]);
    source.overrides.extend(flags.iter().map(|(flag, path, value)| Override {
        flag: (*flag).to_owned(),
        path: (*path).to_owned(),
        value: (*value).to_owned(),
    }));
    let (config, _) = load(&source).expect("accepted");
    let told = config.derp.server.check_alone(&settings(&source));
    told.err().map_or_else(String::new, |problems| problems.to_string())
}

#[test]
fn a_relay_by_itself_is_open_only_where_nobody_says_otherwise() {
    let open = ("--open", "derp.server.verify_clients", "false");
    let url = ("--verify-url", "derp.server.verify.url", "https://h/verify");
    let names = "verify: {url: 'https://h/verify'}";
    for (server, flags) in [
        ("verify_clients: false", &[][..]),
        ("", &[open]),
        (names, &[open]),
        ("verify_clients: false, verify: {control_socket: s}", &[open]),
        (names, &[]),
        ("", &[url]),
    ] {
        assert_eq!(told_alone(server, flags), "", "{server} {flags:?}");
    }
    let told = told_alone("", &[]);
    assert!(told.contains("derp.server.verify: nobody says who may use the relay"), "{told}");
    let both = format!("verify_clients: false, {names}");
    for (server, flags) in [(&*both, &[][..]), ("verify_clients: false", &[url])] {
        let told = told_alone(server, flags);
        let expected = "error: /etc/mesh/config.yaml:1:49: derp.server.verify_clients: is false, but \
                        derp.server.verify.url names";
        assert!(told.starts_with(expected), "{told}");
    }
}

#[test]
fn the_relay_has_a_listener_of_its_own_unless_the_public_one_has_its_certificate() {
    let port = |text: &str| {
        let config = accepted(text, &[]);
        config.derp.server.own_listen_addr(&config).map(|address| address.port())
    };
    let public = "tls_cert_path: a\ntls_key_path: b\n";
    assert_eq!(port(""), Some(8443));
    assert_eq!(port(public), None);
    let own = "derp: {server: {tls_cert_path: c, tls_key_path: d}}\n";
    assert_eq!(port(&format!("{public}{own}")), Some(8443));
    let behind_a_proxy = "server_url: https://h\nderp: {server: {listen_addr: ''}}\n";
    assert_eq!(port(behind_a_proxy), None);
}

#[test]
fn a_host_is_a_name_or_an_address() {
    let host = |text: &str| {
        let config = accepted(&format!("derp: {{server: {{hostname: '{text}'}}}}\n"), &[]);
        config.derp.server.hostname.map(|host| host.as_str().to_owned())
    };
    assert_eq!(host(""), None);
    assert_eq!(host("Relay.Example.com.").as_deref(), Some("relay.example.com"));
    assert_eq!(host("192.0.2.7").as_deref(), Some("192.0.2.7"));
    assert_eq!(host("[2001:DB8::1]").as_deref(), Some("2001:db8::1"));
    assert!(
        told("derp: {server: {hostname: 'https://x'}}\n", &[]).contains("is not a host such as")
    );
}
