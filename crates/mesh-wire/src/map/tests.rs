use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use crate::{
    Base64, CapabilityVersion, DerpHomeParams, DerpMap, DerpRegionId, DisplayMessage,
    DisplayMessageAction, DisplayMessageSeverity, DnsConfig, FilterRule, KEEP_ALIVE_JSON,
    MapResponse, NetPortRange, Node, NodeId, PeerChange, PingRequest, PortRange, RawJson,
    RegisterResponse, SshAction, SshPolicy, SshRule, is_incremental,
};

#[track_caller]
fn check(value: &impl Serialize, json: &str) {
    assert_eq!(serde_json::to_string(value).unwrap(), json);
}

#[test]
fn keep_alive_is_the_exact_text_that_clients_compare() {
    check(&MapResponse::keep_alive(), KEEP_ALIVE_JSON);
}

#[test]
fn nothing_is_an_empty_object() {
    check(&MapResponse::default(), "{}");
}

#[test]
fn an_empty_list_of_peers_is_left_out() {
    let message =
        MapResponse { peers: Vec::new(), peers_changed: Vec::new(), ..MapResponse::default() };
    check(&message, "{}");
}

#[test]
fn an_empty_base_filter_denies() {
    let message = MapResponse { packet_filter: Some(Vec::new()), ..MapResponse::default() };
    check(&message, r#"{"PacketFilter":[]}"#);
}

#[test]
fn named_filters_are_deleted_by_null_and_emptied_by_an_empty_list() {
    let rule = FilterRule {
        src_ips: ["100.64.0.1-100.64.0.9".into()].into(),
        dst_ports: vec![NetPortRange { ip: "*".into(), ports: PortRange::ANY }],
        ..FilterRule::default()
    };
    let filters = [("*", None), ("a", Some(Vec::new())), ("b", Some(vec![rule]))];
    let filters = filters.map(|(name, rules)| (name.to_owned(), rules));
    let message = MapResponse { packet_filters: filters.into(), ..MapResponse::default() };
    check(
        &message,
        concat!(
            r#"{"PacketFilters":{"*":null,"a":[],"b":[{"SrcIPs":["100.64.0.1-100.64.0.9"],"#,
            r#""DstPorts":[{"IP":"*","Ports":{"First":0,"Last":65535}}]}]}}"#,
        ),
    );
}

#[test]
fn health_is_cleared_by_an_empty_list() {
    let message = MapResponse { health: Some(Vec::new()), ..MapResponse::default() };
    check(&message, r#"{"Health":[]}"#);
}

#[test]
fn display_messages_are_taken_back_by_null() {
    let shown = DisplayMessage {
        title: "Key expires".to_owned(),
        severity: DisplayMessageSeverity::High,
        primary_action: Some(DisplayMessageAction {
            url: "https://control.example/a?b=1&c=2".to_owned(),
            label: "Sign in".to_owned(),
        }),
        ..DisplayMessage::default()
    };
    let messages = [("*".to_owned(), None), ("key".to_owned(), Some(shown))];
    let message = MapResponse { display_messages: messages.into(), ..MapResponse::default() };
    check(
        &message,
        concat!(
            r#"{"DisplayMessages":{"*":null,"key":{"Title":"Key expires","Text":"","#,
            r#""Severity":"high","PrimaryAction":{"URL":"https://control.example/a?b=1&c=2","#,
            r#""Label":"Sign in"}}}}"#,
        ),
    );
}

#[test]
fn region_scores_are_reset_by_an_empty_object() {
    let reset = DerpHomeParams { region_score: Some(BTreeMap::new()) };
    check(
        &DerpMap { home_params: Some(reset), ..DerpMap::default() },
        r#"{"HomeParams":{"RegionScore":{}}}"#,
    );
    let score = DerpHomeParams { region_score: Some([(DerpRegionId(9), 0.5)].into()) };
    check(&score, r#"{"RegionScore":{"9":0.5}}"#);
}

#[test]
fn regions_are_left_out_to_keep_them_and_never_null() {
    check(
        &DerpMap { omit_default_regions: true, ..DerpMap::default() },
        r#"{"omitDefaultRegions":true}"#,
    );
}

#[test]
fn a_capability_without_values_is_null() {
    let value = RawJson::parse(r#"{"b":1e3,"a":12345678901234567890123}"#).unwrap();
    let caps = [("https".to_owned(), None), ("x".to_owned(), Some(vec![value]))];
    let patch =
        PeerChange { node_id: NodeId(7), cap_map: Some(caps.into()), ..PeerChange::default() };
    check(
        &patch,
        r#"{"NodeID":7,"CapMap":{"https":null,"x":[{"b":1e3,"a":12345678901234567890123}]}}"#,
    );
}

#[test]
fn a_patch_can_say_that_there_are_none() {
    let patch = PeerChange {
        node_id: NodeId(7),
        cap_map: Some(BTreeMap::new()),
        endpoints: Some(Vec::new()),
        ..PeerChange::default()
    };
    check(&patch, r#"{"NodeID":7,"CapMap":{},"Endpoints":[]}"#);
}

#[test]
fn an_empty_ssh_policy_denies() {
    let message = MapResponse { ssh_policy: Some(SshPolicy::default()), ..MapResponse::default() };
    check(&message, r#"{"SSHPolicy":{"rules":[]}}"#);
}

#[test]
fn ssh_names_are_lower_camel_and_durations_nanoseconds() {
    let action =
        SshAction { accept: true, session_duration_ns: 5_000_000_000, ..SshAction::default() };
    let rule = SshRule { action: Some(action), ..SshRule::default() };
    check(
        &rule,
        r#"{"principals":[],"sshUsers":{},"action":{"accept":true,"sessionDuration":5000000000}}"#,
    );
}

#[test]
fn a_register_response_has_all_fields() {
    check(
        &RegisterResponse { error: "no".to_owned(), ..RegisterResponse::default() },
        concat!(
            r#"{"User":{"ID":0,"DisplayName":""},"#,
            r#""Login":{"ID":0,"Provider":"","LoginName":"","DisplayName":""},"#,
            r#""NodeKeyExpired":false,"MachineAuthorized":false,"AuthURL":"","#,
            r#""NodeKeySignature":null,"Error":"no"}"#,
        ),
    );
}

#[test]
fn a_ping_has_what_the_rust_client_requires() {
    check(&PingRequest::default(), r#"{"URL":"","URLIsNoise":false,"Types":""}"#);
}

#[test]
fn bytes_are_padded_base64() {
    check(&Base64(vec![0xfb, 0xff, 1, 2]), r#""+/8BAg==""#);
}

#[test]
fn text_is_raw_utf_8_without_html_escapes() {
    let message = MapResponse { domain: "<ü>&'\u{2028}十".to_owned(), ..MapResponse::default() };
    check(&message, "{\"Domain\":\"<ü>&'\u{2028}十\"}");
}

#[test]
fn opt_bools_are_true_false_or_absent() {
    let message = MapResponse {
        collect_services: Some(false),
        default_auto_update: Some(true),
        ..MapResponse::default()
    };
    check(&message, r#"{"CollectServices":false,"DefaultAutoUpdate":true}"#);
}

#[test]
fn a_node_is_written_as_clients_want_it() {
    let node = Node {
        id: NodeId(7),
        stable_id: "n7".to_owned(),
        name: "a.tail.example.".to_owned(),
        addresses: vec!["100.64.0.7/32".parse().unwrap(), "fd7a::7/128".parse().unwrap()],
        endpoints: vec!["[2001:db8::7]:41641".parse().unwrap()],
        home_derp: DerpRegionId(999),
        cap: CapabilityVersion(142),
        key_expiry: Some("2026-08-19T10:11:12Z".parse().unwrap()),
        online: Some(false),
        machine_authorized: true,
        ..Node::default()
    };
    check(
        &node,
        &[
            r#"{"ID":7,"StableID":"n7","Name":"a.tail.example.","User":0,"Key":"nodekey:"#,
            &"0".repeat(64),
            r#"","KeyExpiry":"2026-08-19T10:11:12Z","Addresses":["100.64.0.7/32","fd7a::7/128"],"#,
            r#""Endpoints":["[2001:db8::7]:41641"],"HomeDERP":999,"Cap":142,"Online":false,"#,
            r#""MachineAuthorized":true}"#,
        ]
        .concat(),
    );
}

#[test]
fn no_allowed_ips_is_another_thing_than_those_of_the_addresses() {
    let json = |allowed_ips| serde_json::to_value(Node { allowed_ips, ..Node::default() }).unwrap();
    assert_eq!(json(None).get("AllowedIPs"), None);
    assert_eq!(json(Some(Vec::new()))["AllowedIPs"], json!([]));
}

#[track_caller]
fn check_incremental(message: &MapResponse, expected: bool) {
    assert_eq!(is_incremental(message), expected, "{}", serde_json::to_string(message).unwrap());
}

#[test]
fn what_clients_apply_in_place_is_incremental() {
    check_incremental(&MapResponse::default(), true);
    let fast = MapResponse {
        peers_removed: vec![NodeId(1)],
        peers_changed: vec![Node::default()],
        peers_changed_patch: vec![PeerChange {
            node_id: NodeId(2),
            derp_region: DerpRegionId(1),
            endpoints: Some(Vec::new()),
            online: Some(true),
            last_seen: Some(jiff::Timestamp::UNIX_EPOCH),
            ..PeerChange::default()
        }],
        peer_seen_change: [(NodeId(3), true)].into(),
        online_change: [(NodeId(4), true)].into(),
        packet_filter: Some(Vec::new()),
        packet_filters: [("a".to_owned(), None)].into(),
        user_profiles: vec![crate::UserProfile::default()],
        ping_request: Some(PingRequest::default()),
        control_time: Some(jiff::Timestamp::UNIX_EPOCH),
        pop_browser_url: "https://control.example".to_owned(),
        ..MapResponse::default()
    };
    check_incremental(&fast, true);
}

#[test]
fn a_slow_patch_is_not_incremental() {
    let patch = PeerChange { node_id: NodeId(2), ..PeerChange::default() };
    let slow = [
        PeerChange { node_id: NodeId(0), ..patch.clone() },
        PeerChange { cap: CapabilityVersion(1), ..patch.clone() },
        PeerChange { cap_map: Some(BTreeMap::new()), ..patch.clone() },
        PeerChange { key: Some(mesh_keys::NodePublic::default()), ..patch.clone() },
        PeerChange { key_signature: Base64(vec![1]), ..patch.clone() },
        PeerChange { disco_key: Some(mesh_keys::DiscoPublic::default()), ..patch.clone() },
        PeerChange { key_expiry: Some(jiff::Timestamp::UNIX_EPOCH), ..patch },
    ];
    for patch in slow {
        let message = MapResponse { peers_changed_patch: vec![patch], ..MapResponse::default() };
        check_incremental(&message, false);
    }
}

#[test]
fn every_config_field_is_not_incremental() {
    let none = MapResponse::default;
    let messages = [
        MapResponse { node: Some(Box::default()), ..none() },
        MapResponse { derp_map: Some(Arc::default()), ..none() },
        MapResponse { dns_config: Some(DnsConfig::default()), ..none() },
        MapResponse { domain: "a".to_owned(), ..none() },
        MapResponse { collect_services: Some(false), ..none() },
        MapResponse { health: Some(Vec::new()), ..none() },
        MapResponse { display_messages: [("a".to_owned(), None)].into(), ..none() },
        MapResponse { ssh_policy: Some(SshPolicy::default()), ..none() },
        MapResponse { tka_info: Some(crate::TkaInfo::default()), ..none() },
        MapResponse { domain_data_plane_audit_log_id: "a".to_owned(), ..none() },
        MapResponse { debug: Some(crate::Debug::default()), ..none() },
        MapResponse { control_dial_plan: Some(crate::ControlDialPlan::default()), ..none() },
        MapResponse { client_version: Some(crate::ClientVersion::default()), ..none() },
        MapResponse { peers: vec![Node::default()], ..none() },
        MapResponse { default_auto_update: Some(false), ..none() },
    ];
    for message in messages {
        check_incremental(&message, false);
    }
}
