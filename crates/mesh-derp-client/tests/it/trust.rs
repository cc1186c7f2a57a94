//! Which relays are trusted: by name, by pin, or for tests.

use mesh_wire::DerpNode;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use rustls::RootCertStore;

use crate::relays::{Client, Identity, TestRelay, pinned_node, tell};

/// Connects to a relay with a certificate for `relay.example`.
async fn check(change: impl FnOnce(&mut DerpNode), with_root: bool, expected: Result<(), &str>) {
    check_identity(Identity::new("relay.example"), change, with_root, expected).await;
}

/// Connects to a relay, and compares why that fails with the beginning of what is expected.
async fn check_identity(
    identity: Identity,
    change: impl FnOnce(&mut DerpNode),
    with_root: bool,
    expected: Result<(), &str>,
) {
    let relay = TestRelay::start(&identity).await;
    let mut node = pinned_node(relay.addr(), &identity);
    "900a".clone_into(&mut node.name);
    change(&mut node);
    let roots = if with_root { identity.roots } else { RootCertStore::empty() };
    let mut client = Client::spawn_with(1, vec![node], roots, false);
    match expected {
        Ok(()) => client.expect_connected().await,
        Err(expected) => {
            let told = tell(&client.expect_disconnected().await);
            assert!(
                told.starts_with(&format!("cannot connect to relay 900a: {expected}")),
                "{told}"
            );
        }
    }
}

#[tokio::test]
async fn a_pinned_certificate_needs_no_root_and_no_name() {
    check(|_| {}, false, Ok(())).await;
    check(|node| node.host_name = "elsewhere.example".to_owned(), false, Ok(())).await;
    check(|node| node.host_name = "127.0.0.1".to_owned(), false, Ok(())).await;
}

#[tokio::test]
async fn a_pinned_certificate_may_be_expired_and_call_itself_an_authority() {
    let mut params = CertificateParams::new(["elsewhere.example".to_owned()]).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(2019, 1, 1);
    params.not_after = date_time_ymd(2020, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("a certificate").pem() + &key.serialize_pem();
    check_identity(Identity::from_pem(pem), |_| {}, false, Ok(())).await;
}

#[tokio::test]
async fn another_certificate_than_the_pinned_one_is_refused() {
    let other = Identity::new("relay.example");
    let refused = "no trusted TLS connection: other error: certificate is not the pinned one";
    check(|node| node.cert_name = other.pin, true, Err(refused)).await;
    let malformed = |node: &mut DerpNode| node.cert_name = "sha256-raw:beef".to_owned();
    check(malformed, true, Err("pin of the relay's certificate is malformed")).await;
}

#[tokio::test]
async fn a_certificate_is_for_the_host_or_for_the_cert_name() {
    let name = |host: &'static str, cert: &'static str| {
        move |node: &mut DerpNode| {
            node.host_name = host.to_owned();
            node.cert_name = cert.to_owned();
        }
    };
    check(name("relay.example", ""), true, Ok(())).await;
    check(name("front.example", "relay.example"), true, Ok(())).await;
    let refused = "no trusted TLS connection: invalid peer certificate: ";
    check(name("front.example", ""), true, Err(refused)).await;
    check(name("relay.example", "front.example"), true, Err(refused)).await;
    check(name("relay.example", ""), false, Err(refused)).await;
    check(name("not a name", ""), true, Err("relay has no valid TLS server name")).await;
}

#[tokio::test]
async fn insecure_for_tests_takes_any_certificate() {
    let insecure = |node: &mut DerpNode| {
        node.cert_name = String::new();
        node.host_name = "elsewhere.example".to_owned();
        node.insecure_for_tests = true;
    };
    check(insecure, false, Ok(())).await;
}
