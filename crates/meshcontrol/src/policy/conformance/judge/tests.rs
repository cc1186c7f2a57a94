//! A judge that lets everything pass would be a fine thing for the judged.

use super::*;

/// A case of one node `a`.
fn case(expected: &Value) -> Case {
    let case = json!({
        "id": "case",
        "policy": "{}",
        "accepted": true,
        "topology": "t",
        "unstable": ["routes:moving"],
        "expect": { "a": expected },
    });
    serde_json::from_value(case).unwrap()
}

fn judged(case: &Case, view: &Value) -> Vec<String> {
    let answer = json!({ "accepted": true, "expect": { "a": view, "b": { "not": "captured" } } });
    judge(case, &answer).iter().map(Difference::to_string).collect()
}

fn check(expected: &Value, view: &Value, differences: &[&str]) {
    assert_eq!(judged(&case(expected), view), differences);
}

#[test]
fn absent_null_and_empty_are_equal() {
    let empty = json!({ "packet_filter_rules": [], "peers": {}, "cap_map": {}, "ssh_rules": null });
    check(&json!({ "packet_filter_rules": null, "peers": {} }), &empty, &[]);
}

#[test]
fn the_order_of_rules_counts_but_not_that_of_addresses() {
    let rule = |sources: &[&str]| json!({ "SrcIPs": sources, "IPProto": [6] });
    let rules = |rules: &[Value]| json!({ "packet_filter_rules": rules, "peers": {} });
    let (one, two) = (rule(&["1.1.1.1", "2.2.2.2"]), rule(&["3.3.3.3"]));
    let turned = rule(&["2.2.2.2", "1.1.1.1"]);
    check(&rules(&[one.clone(), two.clone()]), &rules(&[turned, two.clone()]), &[]);
    let difference = concat!(
        "case: a packet_filter_rules\n    in another order; expected:\n",
        "    {\"IPProto\":[6],\"SrcIPs\":[\"1.1.1.1\",\"2.2.2.2\"]}\n",
        "    {\"IPProto\":[6],\"SrcIPs\":[\"3.3.3.3\"]}\n",
    );
    check(&rules(&[one.clone(), two.clone()]), &rules(&[two, one]), &[difference]);
}

#[test]
fn a_repeated_destination_counts() {
    let port = json!({ "IP": "1.1.1.1", "Ports": { "First": 1, "Last": 2 } });
    let rules = |ports: &[&Value]| json!({ "packet_filter_rules": [{ "SrcIPs": ["*"], "DstPorts": ports }], "peers": {} });
    assert_eq!(judged(&case(&rules(&[&port, &port])), &rules(&[&port])).len(), 1);
}

#[test]
fn the_order_of_capability_grants_and_of_their_values_counts() {
    let rules = |grants: &[Value]| json!({ "packet_filter_rules": [{ "SrcIPs": ["*"], "CapGrant": grants }], "peers": {} });
    let grant =
        |values: Value| json!({ "Dsts": ["1.1.1.1/32", "2.2.2.2/32"], "CapMap": { "x": values } });
    let turned = json!({ "Dsts": ["2.2.2.2/32", "1.1.1.1/32"], "CapMap": { "x": [1, 2] } });
    let (one, two) = (grant(json!([1, 2])), grant(json!([2, 1])));
    check(&rules(&[one.clone(), two.clone()]), &rules(&[turned, two.clone()]), &[]);
    assert_eq!(judged(&case(&rules(&[one.clone(), two.clone()])), &rules(&[two, one])).len(), 1);
    check(&rules(&[grant(json!([]))]), &rules(&[grant(Value::Null)]), &[]);
}

#[test]
fn sources_may_be_compared_by_address() {
    let rules =
        |sources: &[&str]| json!({ "packet_filter_rules": [{ "SrcIPs": sources }], "peers": {} });
    let mut case = case(&rules(&["10.0.0.0", "10.0.0.1"]));
    assert_eq!(judged(&case, &rules(&["10.0.0.0/31"])).len(), 1);
    case.compare.src_ips = Some("address-set".to_owned());
    assert_eq!(judged(&case, &rules(&["10.0.0.0-10.0.0.1"])), [""; 0]);
    assert_eq!(judged(&case, &rules(&["10.0.0.0/30"])).len(), 1);
}

#[test]
fn peers_are_an_exact_set_and_routes_too() {
    let peers = |peers: Value| json!({ "packet_filter_rules": [], "peers": peers });
    let expected =
        peers(json!({ "b": { "routes": ["10.0.0.0/8", "0.0.0.0/0"] }, "c": { "online": false } }));
    check(
        &expected,
        &peers(json!({ "b": { "routes": ["0.0.0.0/0", "10.0.0.0/8"] }, "c": {} })),
        &[],
    );
    let differences =
        ["case: a peers\n  - \"c\"\n  + \"d\"\n", "case: a b.routes\n  - \"0.0.0.0/0\"\n"];
    check(&expected, &peers(json!({ "b": { "routes": ["10.0.0.0/8"] }, "d": {} })), &differences);
}

#[test]
fn routes_on_the_move_are_not_judged() {
    let peers = |routes: &[&str]| json!({ "packet_filter_rules": [], "peers": { "moving": { "routes": routes } } });
    check(&peers(&["10.0.0.0/8"]), &peers(&[]), &[]);
}

#[test]
fn what_is_not_in_the_schema_differs() {
    let view = json!({ "packet_filter_rules": [], "peers": {}, "extra": 1 });
    check(&json!({ "packet_filter_rules": [], "peers": {} }), &view, &["case: a extra\n  + 1\n"]);
}

#[test]
fn ssh_rules_are_compared_in_order_and_a_check_only_as_such() {
    let rule = |principals: &[&str], action: Value| json!({ "principals": principals, "sshUsers": { "root": "" }, "action": action });
    let view =
        |rules: &[Value]| json!({ "packet_filter_rules": [], "peers": {}, "ssh_rules": rules });
    let held = |url: &str| json!({ "holdAndDelegate": url });
    let expected = view(&[rule(&["1.1.1.1", "2.2.2.2"], held("x"))]);
    check(&expected, &view(&[rule(&["2.2.2.2", "1.1.1.1"], held("y"))]), &[]);
    let accepted = view(&[rule(&["1.1.1.1", "2.2.2.2"], json!({ "accept": true }))]);
    assert_eq!(judged(&case(&expected), &accepted).len(), 1);
    let repeated = view(&[rule(&["1.1.1.1", "1.1.1.1", "2.2.2.2"], held("x"))]);
    assert_eq!(judged(&case(&expected), &repeated).len(), 1);
}

#[test]
fn a_rejection_must_say_what_the_service_says() {
    let mut case = case(&Value::Null);
    (case.accepted, case.error_message) = (false, "tag not found".to_owned());
    let answer = |message: &str| json!({ "accepted": false, "error_message": message });
    assert!(judge(&case, &answer("line 3: tag not found: x")).is_empty());
    assert_eq!(judge(&case, &answer("no")).len(), 1);
    assert_eq!(judge(&case, &json!({ "accepted": true, "expect": {} })).len(), 1);
    case.accepted = true;
    assert_eq!(judge(&case, &answer("tag not found")).len(), 1);
}
