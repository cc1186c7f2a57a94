use super::*;

const RELAY: NodePublic = NodePublic::from_bytes([0xab; 32]);
const NOW: SystemTime = SystemTime::UNIX_EPOCH;

#[test]
fn self_signed_certificate_is_read_again_with_the_same_pin() {
    for host in ["192.0.2.1", "2001:db8::1", "relay.example.com"] {
        let text = generate_self_signed(host, NOW).expect("a certificate");
        let certificate = Certificate::from_pem(&text).expect("what was written");
        let pin = certificate.pin().expect("one certificate");
        let hex = pin.strip_prefix("sha256-raw:").expect("prefix");
        assert_eq!(hex.len(), 64);
        assert!(hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        assert_eq!(Certificate::from_pem(&text).expect("text").pin().as_ref(), Some(&pin));
        assert!(certificate.is_for(host));
        for other in ["192.0.2.9", "2001:db8::9", "example.com", ""] {
            assert!(!certificate.is_for(other), "{host} is not {other}");
        }
        certificate.server_config(&RELAY, NOW).expect("a usable certificate");
    }
}

#[test]
fn host_names_that_no_certificate_can_hold_are_refused() {
    let refused = generate_self_signed("relé", NOW);
    assert!(matches!(refused, Err(CertificateError::Generate(_))));
}

#[test]
fn unusable_texts_are_refused() {
    let text = |host| generate_self_signed(host, NOW).expect("a certificate");
    let (certificate, key) = {
        let text = text("192.0.2.1");
        let cut = text.find("-----BEGIN PRIVATE KEY").expect("a key");
        (text[..cut].to_owned(), text[cut..].to_owned())
    };
    assert!(matches!(Certificate::from_pem(&key), Err(CertificateError::NoCertificate)));
    assert!(matches!(Certificate::from_pem(&certificate), Err(CertificateError::Pem(_))));
    assert!(matches!(Certificate::from_pem(""), Err(CertificateError::NoCertificate)));

    let mut swapped = Certificate::from_pem(&(certificate.clone() + &key)).expect("a pair");
    swapped.key = Certificate::from_pem(&text("192.0.2.2")).expect("another pair").key;
    let refused = swapped.server_config(&RELAY, NOW);
    assert!(matches!(refused, Err(CertificateError::Tls(_))));

    let chain =
        Certificate::from_pem(&(certificate.clone() + &certificate + &key)).expect("a chain");
    assert_eq!(chain.pin(), None);
}

#[test]
fn meta_certificate_names_the_relay() {
    let certificate = meta_certificate(&RELAY, NOW).expect("a certificate");
    let name = format!("derpkey{}", "ab".repeat(32));
    let holds = |part: &[u8]| certificate.windows(part.len()).any(|window| window == part);
    assert!(holds(name.as_bytes()));
    assert!(holds(&[0x02, 0x01, 0x02]), "serial number 2 as a DER integer");
}
