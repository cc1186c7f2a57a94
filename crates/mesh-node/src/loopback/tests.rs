use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

fn asked_with(headers: &[(&'static str, String)]) -> Result<(), StatusCode> {
    let headers =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    check(&headers.collect(), "secret")
}

fn basic(text: &str) -> (&'static str, String) {
    ("authorization", format!("Basic {}", BASE64.encode(text.as_bytes())))
}

#[test]
fn the_local_api_wants_its_header_and_the_password_of_any_user() {
    let sign = ("sec-tailscale", "localapi".to_owned());
    assert_eq!(asked_with(&[sign.clone(), basic(":secret")]), Ok(()));
    assert_eq!(asked_with(&[sign.clone(), basic("any:secret")]), Ok(()));
    assert_eq!(asked_with(&[basic(":secret")]), Err(StatusCode::FORBIDDEN));
    for wrong in [":secre", "secret", "", ":secret2", "secret:"] {
        let asked = asked_with(&[sign.clone(), basic(wrong)]);
        assert_eq!(asked, Err(StatusCode::UNAUTHORIZED), "{wrong}");
    }
    assert_eq!(asked_with(&[sign]), Err(StatusCode::UNAUTHORIZED));
}

#[test]
fn credentials_have_128_bits_and_differ() {
    let (one, other) = (credential().unwrap(), credential().unwrap());
    assert_eq!(one.len(), 32);
    assert_ne!(one, other);
}

/// A port of a node whose control server does not answer.
async fn loopback() -> Loopback {
    let builder = Node::builder().control_url("http://127.0.0.1:1").ephemeral(true);
    Arc::new(builder.build().await.unwrap()).loopback().await.unwrap()
}

/// What is answered to these bytes.
async fn answer(to: &Loopback, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to.address()).await.unwrap();
    stream.write_all(sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    heard
}

#[tokio::test]
async fn one_port_serves_the_local_api_and_socks5_to_those_who_know_the_password() {
    let loopback = loopback().await;
    let request = |password: &str| {
        let (name, value) = basic(&format!(":{password}"));
        let request = "GET /localapi/v0/status HTTP/1.1\r\nhost: local\r\nsec-tailscale: localapi";
        format!("{request}\r\nconnection: close\r\n{name}: {value}\r\n\r\n")
    };
    let status = answer(&loopback, request(loopback.local_api_credential()).as_bytes()).await;
    let status = String::from_utf8(status).unwrap();
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    assert!(status.contains(r#""BackendState":"Starting""#), "{status}");
    let refused = answer(&loopback, request(loopback.proxy_credential()).as_bytes()).await;
    assert!(refused.starts_with(b"HTTP/1.1 401"));

    let login =
        |password: &str| [&[5, 1, 2, 1, 5][..], b"tsnet", &[32], password.as_bytes()].concat();
    let taken = answer(&loopback, &login(loopback.proxy_credential())).await;
    assert_eq!(taken, [5, 2, 1, 0]);
    let refused = answer(&loopback, &login(loopback.local_api_credential())).await;
    assert_eq!(refused, [5, 2, 1, 1]);
}

#[tokio::test]
async fn the_port_closes_with_its_handle() {
    let loopback = loopback().await;
    let address = loopback.address();
    TcpStream::connect(address).await.unwrap();
    drop(loopback);
    let is_closed = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), is_closed).await.unwrap();
}
