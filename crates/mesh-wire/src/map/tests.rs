use crate::{KEEP_ALIVE_JSON, MapRequest, MapResponse};

#[test]
fn keep_alive_is_the_exact_text_that_clients_compare() {
    let json = serde_json::to_string(&MapResponse::keep_alive()).unwrap();
    assert_eq!(json, KEEP_ALIVE_JSON);
}

#[test]
fn keys_match_without_regard_to_case() {
    let request: MapRequest = serde_json::from_str(
        r#"{"VERSION":130,"HostInfo":{"IpnVersion":"1","NetInfo":{"PreferredDerp":999}},"x":[1]}"#,
    )
    .unwrap();
    assert_eq!(request.hostinfo.unwrap().net_info.unwrap().preferred_derp.0, 999);
}
