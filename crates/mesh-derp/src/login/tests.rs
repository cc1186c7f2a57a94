use proptest::prelude::*;

use super::*;

const NONCE: [u8; NONCE_BYTES] = [5; NONCE_BYTES];

/// A login frame as tailscale v1.102.5 (Go) writes it for the private keys `02…` (client) and `01…`
/// (relay), with `{"version":2,"CanAckPings":true}` inside.
const GO_CLIENT_INFO: &str = concat!(
    "02",                                                               // type: client info
    "00000068",                                                         // 104 bytes follow
    "ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59", // the client's key
    "63bd6951fedae9662abad7dd8b3e54382f6cc170811c5de0",                 // nonce
    "ee4961c0846b7435a98dafd81ef710bf",                                 // authenticator
    "3d6686f8c14685dc15e99c981ccd63c5f146369cf83552176b47cc79a5515dd4", // sealed JSON
);

/// What the same Go code seals as server info for that client: `{"version":2}`.
const GO_SERVER_INFO: &str = concat!(
    "7d5a9526f8c3539357f9ae7085cae052d57ee5f96196b479", // nonce
    "9b78b36f3373a6defa7ec7a0553ce559",                 // authenticator
    "987700d7438f17a23036c87d60",                       // sealed JSON
);

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex"))
        .collect()
}

fn relay() -> ServerLogin {
    ServerLogin::new(DerpPrivate::from_bytes([1; KEY_BYTES]), MeshKey::from_bytes([9; KEY_BYTES]))
}

fn client() -> NodePrivate {
    NodePrivate::from_bytes([2; KEY_BYTES])
}

/// A login frame whose box holds `json`.
fn login_frame(json: &[u8]) -> Vec<u8> {
    let login = ClientLogin::new(&client(), &relay().public_key()).expect("login");
    let mut frame = Vec::new();
    let sealed = login.channel.seal(NONCE, json);
    put_frame(&mut frame, frame_type::CLIENT_INFO, &[login.public.as_bytes(), &sealed]);
    frame
}

#[test]
fn go_client_logs_in() {
    let frame = hex(GO_CLIENT_INFO);
    let mut input = &frame[..];
    let login = relay().handle_input(&mut input).expect("login").expect("whole frame");
    assert_eq!(login.key, client().public());
    assert_eq!(login.info, ClientInfo { version: 2, can_ack_pings: true, ..ClientInfo::default() });
    assert!(input.is_empty());
}

#[test]
fn go_server_info_opens() {
    let login = ClientLogin::new(&client(), &relay().public_key()).expect("login");
    let info = login.open_server_info(&hex(GO_SERVER_INFO)).expect("server info");
    assert_eq!(info, ServerInfo { version: 2, ..ServerInfo::default() });
}

#[test]
fn both_sides_meet() {
    let info = ClientInfo { version: 2, is_prober: true, ..ClientInfo::default() };
    let mut greeting = Vec::new();
    relay().encode_greeting(&mut greeting);
    let mut reader = crate::FrameReader::new();
    let frame = reader.next_from_server(&mut &greeting[..]).expect("frame");
    let Some(ServerFrame::ServerKey(key)) = frame else { panic!("{frame:?} is no greeting") };

    let client_login = ClientLogin::new(&client(), &key).expect("login");
    let mut hello = Vec::new();
    client_login.encode_client_info(NONCE, &info, &mut hello);
    let login = relay().handle_input(&mut &hello[..]).expect("login").expect("whole frame");
    assert_eq!((login.key, &login.info), (client().public(), &info));

    let mut end = Vec::new();
    login.encode_server_info(None, [6; NONCE_BYTES], &mut end);
    let frame = reader.next_from_server(&mut &end[..]).expect("frame");
    let Some(ServerFrame::ServerInfo(sealed)) = frame else { panic!("{frame:?} is no info") };
    assert_eq!(client_login.open_server_info(sealed).expect("info").version, PROTOCOL_VERSION);
}

#[test]
fn json_of_any_client_is_read() {
    let check = |json: &str, expected: ClientInfo| {
        let frame = login_frame(json.as_bytes());
        let login = relay().handle_input(&mut &frame[..]).expect("login").expect("whole frame");
        assert_eq!(login.info, expected, "{json}");
    };
    // The Rust client, 0.6.1.
    let rust = r#"{"can_ack_pings":false,"is_prober":false,"mesh_key":"none","version":2}"#;
    check(rust, ClientInfo { version: 2, ..ClientInfo::default() });
    let prober = r#"{"version":2,"IsProber":true,"AppName":"x"}"#;
    check(prober, ClientInfo { version: 2, is_prober: true, ..ClientInfo::default() });
    check("{}", ClientInfo::default());
}

#[test]
fn only_the_relays_own_mesh_key_makes_a_peer_of_its_mesh() {
    let login = |relay: ServerLogin, digits: &str| {
        let frame = login_frame(format!(r#"{{"meshKey":"{digits}"}}"#).as_bytes());
        let login = relay.handle_input(&mut &frame[..])?.expect("whole frame");
        Ok::<_, LoginError>(login.is_mesh)
    };
    assert!(login(relay(), &"09".repeat(KEY_BYTES)).expect("login"));
    assert!(!login(relay(), &"08".repeat(KEY_BYTES)).expect("login"));
    // Go relays without a mesh key may write it so.
    assert!(!login(relay(), &"00".repeat(KEY_BYTES)).expect("login"));
    let lone = || ServerLogin::new(DerpPrivate::from_bytes([1; KEY_BYTES]), None);
    for digits in ["00", "09"] {
        assert!(!login(lone(), &digits.repeat(KEY_BYTES)).expect("login"));
    }
    for digits in ["", "00", "none"] {
        assert!(matches!(login(relay(), digits), Err(LoginError::Json(_))), "{digits}");
    }
}

#[test]
fn info_leaves_out_what_it_does_not_say() {
    let json = |info: &ServerInfo| serde_json::to_string(info).expect("JSON");
    assert_eq!(json(&ServerInfo { version: 2, ..ServerInfo::default() }), r#"{"version":2}"#);
    let mut client = ClientInfo { version: 2, ..ClientInfo::default() };
    let text = serde_json::to_string(&client).expect("JSON");
    assert_eq!(text, r#"{"version":2,"CanAckPings":false}"#);
    client.mesh_key = MeshKey::from_bytes([0xab; KEY_BYTES]);
    let text = serde_json::to_string(&client).expect("JSON");
    let digits = "ab".repeat(KEY_BYTES);
    assert_eq!(text, format!(r#"{{"meshKey":"{digits}","version":2,"CanAckPings":false}}"#));
}

#[test]
fn bad_logins_are_refused() {
    let check = |frame: &[u8]| relay().handle_input(&mut &frame[..]).expect_err("refused");
    let frame = login_frame(b"{}");

    let mut first_byte = frame.clone();
    first_byte[0] = frame_type::SEND_PACKET;
    assert!(matches!(check(&first_byte), LoginError::UnexpectedFrame { frame_type: 0x04 }));

    let mut tampered = frame.clone();
    *tampered.last_mut().expect("bytes") ^= 1;
    assert!(matches!(check(&tampered), LoginError::Box));

    let mut stolen_key = frame;
    let other = NodePrivate::from_bytes([3; KEY_BYTES]).public();
    stolen_key[5..37].copy_from_slice(other.as_bytes());
    assert!(matches!(check(&stolen_key), LoginError::Box));

    assert!(matches!(check(&login_frame(b"[]x")), LoginError::Json(_)));
    for bytes in [0_u32, 71, (16 << 10) + 1, u32::MAX] {
        let header = [&[frame_type::CLIENT_INFO], bytes.to_be_bytes().as_slice()].concat();
        assert!(matches!(check(&header), LoginError::Frame(FrameError::Length { .. })));
    }
}

#[test]
fn keys_of_low_order_are_refused() {
    for first in [0, 1] {
        let mut frame = login_frame(b"{}");
        frame[5..37].fill(0);
        frame[5] = first;
        let refused = relay().handle_input(&mut &frame[..]);
        assert!(matches!(refused, Err(LoginError::LowOrderKey)));
    }
    let refused = ClientLogin::new(&client(), &NodePublic::default());
    assert!(matches!(refused, Err(LoginError::LowOrderKey)));
}

#[test]
fn a_login_may_arrive_byte_by_byte() {
    let frame = hex(GO_CLIENT_INFO);
    for end in 0..frame.len() {
        let mut input = &frame[..end];
        assert!(relay().handle_input(&mut input).expect("no verdict yet").is_none());
        assert_eq!(input.len(), end, "nothing is taken");
    }
}

proptest! {
    #[test]
    fn any_bytes_end_as_a_login_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = relay().handle_input(&mut &bytes[..]);
        if let Some(first) = bytes.first_mut() {
            *first = frame_type::CLIENT_INFO;
        }
        let _ = relay().handle_input(&mut &bytes[..]);
    }
}
