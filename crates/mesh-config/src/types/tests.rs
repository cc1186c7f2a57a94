use std::path::Path;

use super::{DomainName, FileMode, HttpUrl, Nameserver, Secret};
use crate::value::Scalar;

fn read<T: Scalar>(text: &str) -> Option<T> {
    T::from_text(text, Path::new(""))
}

#[test]
fn the_parts_of_a_url_are_told() {
    let check = |text: &str, expected: (&str, bool, &str, u16, &str)| {
        let url: HttpUrl = read(text).expect(text);
        let (origin, host) = (url.origin(), url.host());
        let parts =
            (origin.as_str(), url.is_https(), host.as_str(), url.port(), url.path_and_query());
        assert_eq!(parts, expected, "{text}");
    };
    check("https://Mesh.Example", ("https://Mesh.Example", true, "mesh.example", 443, "/"));
    check("http://h:8080/", ("http://h:8080", false, "h", 8080, "/"));
    check("HTTP://10.0.0.1/a?b", ("http://10.0.0.1", false, "10.0.0.1", 80, "/a?b"));
    check("https://[::1]:1/", ("https://[::1]:1", true, "::1", 1, "/"));
}

#[test]
fn what_is_no_url_of_a_server_is_refused() {
    for text in [
        "",
        "/",
        "mesh.example",
        "mesh.example:80",
        "ftp://h",
        "http://",
        "http:///x",
        "http://h:x",
        "http://h:65536",
        "http://h:",
        "http://u:p@h",
        "http://[::1",
        "http://[h]",
        "http://-h-",
        "http://a b",
        "https://h:99999999999/",
    ] {
        assert_eq!(read::<HttpUrl>(text), None, "{text}");
    }
}

#[test]
fn domain_names_are_lower_case_without_closing_dot() {
    let check = |text: &str, expected: Option<&str>| {
        let name: Option<DomainName> = read(text);
        assert_eq!(name.as_ref().map(DomainName::as_str), expected, "{text}");
    };
    check("Corp.Example.com.", Some("corp.example.com"));
    check("_dmarc.x1", Some("_dmarc.x1"));
    check(&["a".repeat(63).as_str(); 3].join("."), Some(&["a".repeat(63).as_str(); 3].join(".")));
    let too_long = ["a".repeat(63).as_str(); 4].join(".");
    for text in
        ["", ".", "a..b", ".a", "-a", "a-", "a b", "bücher.example", &"a".repeat(64), &too_long]
    {
        check(text, None);
    }
}

#[test]
fn a_domain_contains_itself_and_what_is_below() {
    let domain: DomainName = read("corp.example").expect("a name");
    assert!(domain.contains("corp.example"));
    assert!(domain.contains("Mesh.Corp.Example."));
    assert!(!domain.contains("notcorp.example"));
    assert!(!domain.contains("example"));
}

#[test]
fn nameservers_are_addresses_or_urls() {
    for text in ["1.1.1.1", "2606:4700:4700::1111", "1.1.1.1:53", "https://dns.nextdns.io/abc123"] {
        assert_eq!(read::<Nameserver>(text).expect(text).as_str(), text);
    }
    for text in ["", "dns.example.com", "tls://1.1.1.1", "1.1.1"] {
        assert_eq!(read::<Nameserver>(text), None, "{text}");
    }
}

#[test]
fn file_modes_are_octal() {
    let bits = |text| read::<FileMode>(text).map(FileMode::bits);
    assert_eq!(bits("0770"), Some(0o770));
    assert_eq!(bits("0o770"), Some(0o770));
    assert_eq!(bits("770"), Some(0o770));
    for text in ["", "0o", "+770", "0778", "1777", "rwx"] {
        assert_eq!(bits(text), None, "{text}");
    }
}

#[test]
fn a_secret_is_hidden() {
    let secret: Secret = read("hush").expect("any text");
    assert_eq!(secret.expose(), "hush");
    assert_eq!(format!("{secret:?}"), "Secret(..)");
}
