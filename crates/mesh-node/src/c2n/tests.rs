use super::*;

/// Status and body of the response.
fn answer(request: &str) -> (u16, String) {
    let response = respond(request.as_bytes()).expect("a response");
    let mut headers = [httparse::EMPTY_HEADER; 8];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head.parse(&response).expect("HTTP");
    let body = &response[parsed.unwrap()..];
    let length = head.headers.iter().find(|header| header.name == "Content-Length");
    let length = length.map(|header| header.value.to_vec()).expect("a length");
    assert_eq!(length, body.len().to_string().as_bytes());
    (head.code.expect("a status"), String::from_utf8_lossy(body).into_owned())
}

fn check_unreadable(request: &[u8], error: UnreadableRequest) {
    assert_eq!(respond(request), Err(error), "{:?}", String::from_utf8_lossy(request));
}

#[test]
fn echo_gives_back_the_body_whatever_the_method() {
    let ping = "POST /echo?x=1 HTTP/1.1\r\nHost: unused\r\nContent-Length: 4\r\n\r\nping";
    assert_eq!(answer(ping), (200, "ping".to_owned()));
    assert_eq!(answer("GET /echo HTTP/1.0\r\n\r\n"), (200, String::new()));
}

#[test]
fn a_node_without_tailnet_services_says_so() {
    let services = answer("GET /vip-services HTTP/1.1\r\n\r\n");
    assert_eq!(services, (200, r#"{"ServicesHash":""}"#.to_owned()));
    assert_eq!(answer("POST /vip-services HTTP/1.1\r\n\r\n").0, 405);
}

#[test]
fn nothing_else_is_answered() {
    for path in ["/", "/debug/goroutines", "/netfilter-kind", "/update", "/echo/", "*"] {
        assert_eq!(answer(&format!("GET {path} HTTP/1.1\r\n\r\n")).0, 400, "{path}");
    }
}

#[test]
fn what_is_no_request_has_no_response() {
    check_unreadable(b"", UnreadableRequest::Malformed);
    check_unreadable(b"GET /echo HTTP/1.1\r\n", UnreadableRequest::Malformed);
    check_unreadable(b"\x16\x03\x01", UnreadableRequest::Malformed);
    check_unreadable(&vec![b'x'; REQUEST_BYTES_MAX + 1], UnreadableRequest::TooLong);
    let head = "GET /echo HTTP/1.1\r\n";
    for header in ["Content-Length: 5", "Content-Length: -1", "Transfer-Encoding: chunked"] {
        let request = format!("{head}{header}\r\n\r\nping");
        check_unreadable(request.as_bytes(), UnreadableRequest::Malformed);
    }
    let many = format!("{head}{}\r\n", "x: y\r\n".repeat(HEADERS_MAX + 1));
    check_unreadable(many.as_bytes(), UnreadableRequest::Malformed);
}

#[test]
fn no_cut_request_panics() {
    let request = b"POST /echo HTTP/1.1\r\nContent-Length: 4\r\n\r\nping";
    for length in 0..request.len() {
        check_unreadable(&request[..length], UnreadableRequest::Malformed);
    }
}
