use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{
    DerpMap, DerpRegionId, DnsConfig, ENDPOINTS_MAX, EndpointType, Hostinfo, MapRequest,
    MapResponse, Node, NodeId, ROUTABLE_IPS_MAX, RegisterRequest, SetDeviceAttributesRequest,
    TEXT_BYTES_MAX, TokenRequest,
};

#[track_caller]
fn read<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap()
}

#[track_caller]
fn check_refused<T: DeserializeOwned + std::fmt::Debug>(text: &str, reason: &str) {
    let error = serde_json::from_str::<T>(text).unwrap_err().to_string();
    assert!(error.contains(reason), "{error}");
}

#[test]
fn of_a_key_that_comes_twice_the_last_counts() {
    let request: TokenRequest = read(r#"{"Audience":"a","audience":"b"}"#);
    assert_eq!(request.audience, "b");
}

#[test]
fn keys_of_maps_keep_their_case() {
    let node: Node = read(r#"{"CAPMAP":{"Https":null,"https":[]}}"#);
    assert_eq!(node.cap_map.into_keys().collect::<Vec<_>>(), ["Https", "https"]);
}

#[test]
fn the_zero_time_is_no_time_in_any_zone() {
    for text in ["0001-01-01T00:00:00Z", "0001-01-01T01:00:00+01:00"] {
        let node: Node = read(&format!(r#"{{"KeyExpiry":"{text}"}}"#));
        assert_eq!(node.key_expiry, None);
    }
    let node: Node = read(r#"{"KeyExpiry":"0001-01-01T00:00:01Z"}"#);
    assert!(node.key_expiry.is_some());
}

#[test]
fn times_are_read_in_any_zone_and_written_in_utc() {
    let node: Node = read(r#"{"Created":"2026-08-19T12:11:12.345678901+02:00"}"#);
    let json = serde_json::to_value(node).unwrap();
    assert_eq!(json["Created"], "2026-08-19T10:11:12.345678901Z");
}

#[test]
fn zero_keys_are_none_however_they_are_written() {
    let zero = format!("nodekey:{}", "0".repeat(64));
    for key in [zero.as_str(), ""] {
        let request: RegisterRequest = read(&format!(r#"{{"OldNodeKey":"{key}"}}"#));
        assert_eq!(request.old_node_key.non_zero(), None);
    }
}

#[test]
fn keys_of_another_kind_are_refused() {
    let other = format!(r#"{{"NodeKey":"mkey:{}"}}"#, "a".repeat(64));
    check_refused::<RegisterRequest>(&other, "nodekey:");
}

#[test]
fn an_unusable_endpoint_is_passed_over() {
    let request: MapRequest = read(
        r#"{"Endpoints":["192.0.2.7:41641","[fe80::1%eth0]:1","",null,"x","[2001:db8::7]:2"]}"#,
    );
    let endpoints: Vec<_> = request.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(endpoints, ["192.0.2.7:41641", "[2001:db8::7]:2"]);
}

#[test]
fn endpoints_have_types_while_the_lists_pair_up() {
    let types = |text: &str| {
        let request: MapRequest = read(text);
        request.typed_endpoints().map(|(_, kind)| kind).collect::<Vec<_>>()
    };
    assert_eq!(
        types(r#"{"Endpoints":["192.0.2.7:1","192.0.2.7:2"],"EndpointTypes":[2,77]}"#),
        [EndpointType::STUN, EndpointType(77)],
    );
    assert_eq!(
        types(r#"{"Endpoints":["[fe80::1%eth0]:1","192.0.2.7:2"],"EndpointTypes":[1,2]}"#),
        [EndpointType::UNKNOWN],
    );
}

#[test]
fn a_wrong_prefix_is_refused() {
    check_refused::<Hostinfo>(r#"{"RoutableIPs":["10.0.0.0/33"]}"#, "");
}

#[test]
fn lists_that_a_client_can_grow_are_bounded() {
    let list = |element: &str, count| vec![element; count].join(",");
    let endpoints = |count| format!(r#"{{"Endpoints":[{}]}}"#, list(r#""192.0.2.7:1""#, count));
    let full: MapRequest = read(&endpoints(ENDPOINTS_MAX));
    assert_eq!(full.endpoints.len(), ENDPOINTS_MAX);
    check_refused::<MapRequest>(&endpoints(ENDPOINTS_MAX + 1), "more than 256 elements");
    let nulls = format!(r#"{{"RoutableIPs":[{}]}}"#, list("null", ROUTABLE_IPS_MAX + 1));
    check_refused::<Hostinfo>(&nulls, "more than 10000 elements");
    let same_key = format!(r#"{{"Update":{{{}}}}}"#, list(r#""a":1"#, 257));
    check_refused::<SetDeviceAttributesRequest>(&same_key, "more than 256 elements");
}

#[test]
fn texts_are_bounded() {
    let os = |length| format!(r#"{{"OS":"{}"}}"#, "x".repeat(length));
    assert_eq!(read::<Hostinfo>(&os(TEXT_BYTES_MAX)).os.len(), TEXT_BYTES_MAX);
    check_refused::<Hostinfo>(&os(TEXT_BYTES_MAX + 1), "text longer than 16384 bytes");
}

#[test]
fn nesting_is_bounded() {
    let nested = format!(r#"{{"Update":{{"a":{}1{}}}}}"#, "[".repeat(200), "]".repeat(200));
    check_refused::<SetDeviceAttributesRequest>(&nested, "recursion limit");
    let raw = "[".repeat(100_000) + "1" + &"]".repeat(100_000);
    let node = read::<Node>(&format!(r#"{{"CapMap":{{"a":[{raw}]}}}}"#));
    assert_eq!(node.cap_map["a"].as_ref().unwrap()[0].get(), raw, "nothing looks inside");
    let unknown = format!(r#"{{"x":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(read::<Node>(&unknown), Node::default());
}

#[test]
fn numbers_keep_to_their_type() {
    check_refused::<TokenRequest>(r#"{"CapVersion":-1}"#, "");
    check_refused::<TokenRequest>(r#"{"CapVersion":1.5}"#, "");
    check_refused::<TokenRequest>(r#"{"CapVersion":"130"}"#, "");
    check_refused::<Hostinfo>(r#"{"Services":[{"Port":65536}]}"#, "");
}

#[test]
fn a_null_region_is_dropped() {
    let map: DerpMap = read(r#"{"Regions":{"1":null,"2":{"RegionID":2}}}"#);
    assert_eq!(map.regions.unwrap().into_keys().collect::<Vec<_>>(), [DerpRegionId(2)]);
}

#[test]
fn a_null_route_is_a_route_without_name_servers() {
    let config: DnsConfig = read(r#"{"Routes":{"example.com":null}}"#);
    assert!(config.routes["example.com"].is_empty());
}

#[test]
fn null_deletes_where_it_is_a_command() {
    let message: MapResponse =
        read(r#"{"PacketFilters":{"*":null,"a":[]},"DisplayMessages":{"*":null}}"#);
    assert_eq!(message.packet_filters["*"], None);
    assert_eq!(message.packet_filters["a"], Some(Vec::new()));
    assert_eq!(message.display_messages["*"], None);
    let request: SetDeviceAttributesRequest = read(r#"{"Update":{"a":null,"b":"x"}}"#);
    assert_eq!(request.update["a"], json!(null));
}

#[test]
fn ids_are_numbers_and_decimal_texts_as_keys() {
    let message: MapResponse = read(r#"{"OnlineChange":{"7":true},"PeersRemoved":[8]}"#);
    assert!(message.online_change[&NodeId(7)]);
    let text = serde_json::to_string(&message).unwrap();
    assert_eq!(text, r#"{"PeersRemoved":[8],"OnlineChange":{"7":true}}"#);
    check_refused::<MapResponse>(r#"{"OnlineChange":{"x":true}}"#, "");
}

#[test]
fn errors_say_where() {
    check_refused::<MapRequest>("{\n\"Hostinfo\":{\"OS\":7}}", "line 2 column 18");
}
