use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};

use super::{Reading, Scalar, Value, quote};
use crate::document::parse;

/// Reads `text` to `Some` of what `expected` displays, or to nothing.
fn check<T: Scalar + ToString>(text: &str, expected: Option<&str>) {
    let value = T::from_text(text, Path::new("/base")).map(|value| value.to_string());
    assert_eq!(value.as_deref(), expected, "{text}");
}

#[test]
fn listen_addresses_are_also_read_as_go_writes_them() {
    check::<SocketAddr>("127.0.0.1:80", Some("127.0.0.1:80"));
    check::<SocketAddr>("[::1]:80", Some("[::1]:80"));
    check::<SocketAddr>(":80", Some("[::]:80"));
    check::<SocketAddr>("localhost:80", Some("127.0.0.1:80"));
    for text in ["", ":", "80", "::1:80", "example.com:80", "127.0.0.1", "127.0.0.1:65536", ":http"]
    {
        check::<SocketAddr>(text, None);
    }
}

#[test]
fn truth_is_read_in_the_usual_spellings() {
    for text in ["true", "True", "yes", "ON", "1"] {
        check::<bool>(text, Some("true"));
    }
    for text in ["false", "no", "off", "0"] {
        check::<bool>(text, Some("false"));
    }
    for text in ["", "2", "t", "enabled"] {
        check::<bool>(text, None);
    }
}

#[test]
fn prefixes_lose_their_host_bits() {
    check::<Ipv4Net>("100.64.1.2/10", Some("100.64.0.0/10"));
    check::<Ipv4Net>("100.64.0.0", None);
    check::<IpNet>("10.1.2.3/8", Some("10.0.0.0/8"));
    check::<IpNet>("::1", Some("::1/128"));
    check::<IpNet>("localhost", None);
}

#[test]
fn paths_are_relative_to_the_base() {
    let read = |text| PathBuf::from_text(text, Path::new("/base"));
    assert_eq!(read("a/b"), Some(PathBuf::from("/base/a/b")));
    assert_eq!(read("/a"), Some(PathBuf::from("/a")));
    assert_eq!(read(""), None);
    assert_eq!(read("a\0b"), None);
}

#[test]
fn a_list_is_also_read_from_one_text_with_commas() {
    for text in ["[1, 2]", "1,2", "' 1 , 2, '", "- 1\n- 2"] {
        let mut reading = Reading { base: Path::new(""), faults: Vec::new() };
        let node = parse(text).expect("yaml");
        assert_eq!(Vec::<u16>::read(&node, &mut reading), Some(vec![1, 2]), "{text}");
    }
}

#[test]
fn every_fault_of_a_list_is_told() {
    let mut reading = Reading { base: Path::new(""), faults: Vec::new() };
    let node = parse("[1, x, [2], {a: 3}, ~, 4]").expect("yaml");
    assert_eq!(Vec::<u16>::read(&node, &mut reading), None);
    let messages: Vec<_> = reading.faults.iter().map(|(_, message)| message.as_str()).collect();
    let shape = "is not a whole number up to 65535";
    let found = ["\"x\"", "a list", "a section", "nothing"];
    assert_eq!(messages, found.map(|found| format!("{found} {shape}")));
}

#[test]
fn long_values_are_quoted_in_part() {
    assert_eq!(quote("a\"b"), r#""a\"b""#);
    assert_eq!(quote(&"é".repeat(100)), format!("\"{}\"...", "é".repeat(60)));
}
