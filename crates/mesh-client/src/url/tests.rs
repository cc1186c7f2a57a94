use super::*;

fn check(text: &str, tls: bool, host: &str, port: u16, authority: &str) {
    let url: ControlUrl = text.parse().expect(text);
    assert_eq!((url.is_tls(), url.host(), url.port()), (tls, host, port), "{text}");
    assert_eq!(url.authority(), authority, "{text}");
    assert_eq!(url.to_string(), text.trim_end_matches('/'));
}

#[test]
fn host_and_port_are_read() {
    check("http://127.0.0.1:8080", false, "127.0.0.1", 8080, "127.0.0.1:8080");
    check("https://control.example/", true, "control.example", 443, "control.example");
    check("http://control.example", false, "control.example", 80, "control.example");
    check("https://[::1]:8443", true, "::1", 8443, "[::1]:8443");
}

#[test]
fn anything_else_is_refused() {
    for (text, error) in [
        ("", ControlUrlError::Malformed),
        ("http://", ControlUrlError::Malformed),
        ("http://host:99999", ControlUrlError::Malformed),
        ("http:// host", ControlUrlError::Malformed),
        ("control.example", ControlUrlError::Scheme),
        ("ftp://control.example", ControlUrlError::Scheme),
        ("/path", ControlUrlError::Scheme),
        ("https://user@control.example", ControlUrlError::Extra),
        ("https://control.example/path", ControlUrlError::Extra),
        ("https://control.example?query", ControlUrlError::Extra),
    ] {
        assert_eq!(text.parse::<ControlUrl>(), Err(error), "{text}");
    }
}
