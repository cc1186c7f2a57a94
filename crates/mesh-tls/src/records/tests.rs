use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::ServerConnectionData;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::*;
use crate::Handshake;

type Ends = (Records<ClientConnectionData>, Records<ServerConnectionData>);

fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made = rcgen::generate_simple_self_signed(["relay.example".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.enable_secret_extraction = true;
    (Arc::new(client), Arc::new(server))
}

fn client(config: Arc<ClientConfig>) -> Handshake<UnbufferedClientConnection> {
    Handshake::client(config, ServerName::try_from("relay.example").unwrap()).unwrap()
}

fn ends() -> Ends {
    let (client_config, server_config) = configs();
    let (mut near, mut far) = (client(client_config), Handshake::server(server_config).unwrap());
    let (mut to_far, mut to_near, mut early) = (Vec::new(), Vec::new(), Vec::new());
    let mut is_over = [false; 2];
    while is_over != [true; 2] {
        let mut arrived = std::mem::take(&mut to_near);
        is_over[0] = near.advance(&mut arrived, &mut to_far, &mut early).unwrap();
        let mut arrived = std::mem::take(&mut to_far);
        is_over[1] = far.advance(&mut arrived, &mut to_near, &mut early).unwrap();
    }
    // Whatever came after the end is tickets, for the client alone.
    let (mut near, far) = (near.finish().unwrap(), far.finish().unwrap());
    assert_eq!(near.open(&mut to_near, &mut 0), Ok(None));
    (near, far)
}

/// All data that the records in `wire` hold.
fn open_all<Data>(records: &mut Records<Data>, wire: &mut [u8]) -> Result<Vec<u8>, RecordError> {
    let (mut taken, mut came) = (0, Vec::new());
    while let Some(data) = records.open(wire, &mut taken)? {
        came.extend_from_slice(data);
    }
    assert_eq!(taken, wire.len());
    Ok(came)
}

fn check_crosses<A, B>(near: &mut Records<A>, far: &mut Records<B>, text: &[u8]) {
    let mut wire = Vec::new();
    near.seal(text, &mut wire).unwrap();
    assert_eq!(open_all(far, &mut wire).as_deref(), Ok(text));
}

#[test]
fn data_crosses_both_ways_in_as_many_records_as_it_takes() {
    let (mut near, mut far) = ends();
    let long: Vec<u8> = (0..50_000_u32).map(|byte| byte.to_le_bytes()[0]).collect();
    for text in [b"short".as_slice(), b"ends with \0 zeros\0\0", &long] {
        check_crosses(&mut near, &mut far, text);
        check_crosses(&mut far, &mut near, text);
    }
}

#[test]
fn what_a_client_says_right_after_its_handshake_is_not_lost() {
    let (client_config, server_config) = configs();
    let (mut near, mut far) = (client(client_config), Handshake::server(server_config).unwrap());
    let (mut to_far, mut to_near, mut early) = (Vec::new(), Vec::new(), Vec::new());
    assert!(!near.advance(&mut Vec::new(), &mut to_far, &mut early).unwrap());
    assert!(!far.advance(&mut to_far, &mut to_near, &mut early).unwrap());
    assert!(near.advance(&mut to_near, &mut to_far, &mut early).unwrap());
    near.finish().unwrap().seal(b"hello, and half", &mut to_far).unwrap();
    let (mut near_half, rest) = (to_far.clone(), to_far.len() - 3);
    near_half.truncate(rest);
    assert!(far.advance(&mut near_half, &mut to_near, &mut early).unwrap());
    assert!(early.is_empty());
    near_half.extend_from_slice(&to_far[rest..]);
    assert_eq!(open_all(&mut far.finish().unwrap(), &mut near_half).unwrap(), b"hello, and half");
}

#[test]
fn a_client_of_another_kind_hears_an_alert() {
    let (_, server_config) = configs();
    let mut far = Handshake::server(server_config).unwrap();
    let (mut out, mut early) = (Vec::new(), Vec::new());
    let mut junk = b"\x16\x03\x01\x00\x04\x01\x00\x00\x00".to_vec();
    assert!(far.advance(&mut junk, &mut out, &mut early).is_err());
    assert_eq!(out.first(), Some(&content::ALERT));
}

/// Changes the key of one side, which asks the other to do so too.
fn change_key<Data>(near: &mut Records<Data>, wire: &mut Vec<u8>) {
    near.seal_one(wire, content::HANDSHAKE, |out| out.extend_from_slice(&KEY_UPDATE_REQUESTED));
    near.sealer = Direction::new(near.kernel.update_tx_secret().unwrap()).unwrap();
}

#[test]
fn keys_are_changed_by_either_side_and_on_request() {
    let (mut near, mut far) = ends();
    let mut wire = Vec::new();
    change_key(&mut near, &mut wire);
    near.seal(b"after", &mut wire).unwrap();
    assert_eq!(open_all(&mut far, &mut wire).as_deref(), Ok(b"after".as_slice()));
    assert!(far.owes_key_update);
    check_crosses(&mut far, &mut near, b"answer");
    assert!(!far.owes_key_update);
    check_crosses(&mut near, &mut far, b"on");
    check_crosses(&mut far, &mut near, b"and on");
}

#[test]
fn keys_are_not_changed_again_and_again_for_nothing() {
    let (mut near, mut far) = ends();
    for text in [b"one".as_slice(), b"two", b"three"] {
        let mut wire = Vec::new();
        for _ in 0..KEY_UPDATES_MAX {
            change_key(&mut near, &mut wire);
        }
        near.seal(text, &mut wire).unwrap();
        assert_eq!(open_all(&mut far, &mut wire).as_deref(), Ok(text));
    }
    let mut wire = Vec::new();
    for _ in 0..=KEY_UPDATES_MAX {
        change_key(&mut near, &mut wire);
        near.seal_with(&mut wire, |_| ()).unwrap();
    }
    assert_eq!(open_all(&mut far, &mut wire), Err(RecordError::KeyUpdates));
}

#[test]
fn a_goodbye_ends_what_is_read() {
    let (mut near, mut far) = ends();
    let mut wire = Vec::new();
    near.seal(b"last words", &mut wire).unwrap();
    near.seal_close(&mut wire);
    assert_eq!(open_all(&mut far, &mut wire).as_deref(), Ok(b"last words".as_slice()));
    assert!(far.has_ended());
}

#[test]
fn messages_out_of_place_and_alerts_end_the_connection() {
    for (content_type, message, expected) in [
        (content::HANDSHAKE, b"\x01\0\0\0".as_slice(), RecordError::Unexpected(content::HANDSHAKE)),
        (content::ALERT, b"\x02\x28", RecordError::Alert(40)),
        (99, b"?", RecordError::Unexpected(99)),
        (0, b"", RecordError::Length(0)),
    ] {
        let (mut near, mut far) = ends();
        let mut wire = Vec::new();
        near.seal_one(&mut wire, content_type, |out| out.extend_from_slice(message));
        assert_eq!(far.open(&mut wire, &mut 0), Err(expected));
    }
    // Unsealed: an alert, and what old middleboxes want to see before the end of the handshake.
    for plain in [b"\x15\x03\x03\0\x02\x01\0".as_slice(), b"\x14\x03\x03\0\x01\x01"] {
        let (_, mut far) = ends();
        assert_eq!(far.open(&mut plain.to_vec(), &mut 0), Err(RecordError::Unexpected(plain[0])));
    }
}

#[test]
fn half_a_record_is_left_alone_and_a_forged_one_refused() {
    let (mut near, mut far) = ends();
    let mut wire = Vec::new();
    near.seal(b"text", &mut wire).unwrap();
    let last = wire.len() - 1;
    let mut taken = 0;
    assert_eq!(far.open(&mut wire[..last], &mut taken), Ok(None));
    assert_eq!(taken, 0);
    wire[last] ^= 1;
    assert_eq!(far.open(&mut wire, &mut taken), Err(RecordError::Forged));
}

#[test]
fn a_length_beyond_all_records_is_refused_at_its_header() {
    let (mut near, _) = ends();
    let mut wire = [content::DATA, 3, 3, 0xff, 0xff];
    assert_eq!(near.open(&mut wire, &mut 0), Err(RecordError::Length(0xffff)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_end_as_a_value_or_an_error(mut junk in vec(any::<u8>(), 0..200)) {
        let (mut near, _) = ends();
        let mut taken = 0;
        while let Ok(Some(_)) = near.open(&mut junk, &mut taken) {}
        prop_assert!(taken <= junk.len());
    }
}
