use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use mesh_model::{ApiKey, ApiKeyId, PreauthKey, PreauthKeyId, Tailnet, TailnetId};
use mesh_state::{Loaded, Settings, Snapshot, State};

use super::text::KeyText;
use super::verified::{VERIFIED_MAX, VerifiedKeys};
use super::{Attempts, HashCost, KeyKind, Minted, Verifier, VerifyError, mint};
use super::{UNKNOWN_KEYS_MAX, WRONG_SECRETS_MAX, pool};

fn cheap() -> HashCost {
    HashCost::new(8, 1).unwrap()
}

fn snapshot_of(tailnet: Tailnet) -> Snapshot {
    let loaded = Loaded { tailnet, ..Loaded::default() };
    let now = Timestamp::UNIX_EPOCH;
    State::new(TailnetId(1), loaded, Arc::default(), Settings::default(), now).snapshot(now)
}

fn with_api_key(minted: &Minted) -> Snapshot {
    let mut tailnet = Tailnet::default();
    tailnet.put_api_key(Arc::new(ApiKey {
        id: ApiKeyId(7),
        public_id: minted.secret.public_id.clone(),
        hash: minted.secret.hash.clone(),
        expires_at: None,
        created_at: Timestamp::UNIX_EPOCH,
        last_seen_at: None,
    }));
    snapshot_of(tailnet)
}

fn with_preauth_key(minted: &Minted) -> Snapshot {
    let mut tailnet = Tailnet::default();
    tailnet.put_preauth_key(Arc::new(PreauthKey {
        id: PreauthKeyId(7),
        public_id: minted.secret.public_id.clone(),
        hash: minted.secret.hash.clone(),
        user: None,
        tags: Vec::new(),
        reusable: false,
        ephemeral: false,
        used_at: None,
        used_by: None,
        expires_at: None,
        revoked_at: None,
        created_at: Timestamp::UNIX_EPOCH,
    }));
    snapshot_of(tailnet)
}

/// The same key with its last character changed.
fn with_other_secret(text: &str) -> String {
    let (head, last) = text.split_at(text.len() - 1);
    format!("{head}{}", if last == "a" { "b" } else { "a" })
}

#[test]
fn minted_keys_are_well_formed_and_hide_their_text() {
    for (kind, prefix) in [(KeyKind::Preauth, "tskey-auth-"), (KeyKind::Api, "tskey-api-")] {
        let minted = mint(kind, &cheap()).unwrap();
        let key = KeyText::parse(kind, &minted.text).unwrap();
        assert!(minted.text.starts_with(prefix));
        assert_eq!(key.public_id, minted.secret.public_id);
        assert_eq!((key.public_id.len(), key.secret.len()), (12, 52));
        assert!(!format!("{minted:?}").contains(key.secret));
        assert!(minted.secret.hash.0.starts_with("$argon2id$v=19$m=8,t=1,p=1$"));
        assert_eq!(kind.unmask(&kind.masked(key.public_id)), key.public_id);
        assert_eq!(kind.unmask(key.public_id), key.public_id);
    }
}

#[tokio::test]
async fn two_thousand_who_present_keys_at_once_are_all_verified() {
    const KEYS: u64 = 2000;
    let minted: Vec<_> = (0..KEYS).map(|_| mint(KeyKind::Preauth, &cheap()).unwrap()).collect();
    let mut tailnet = Tailnet::default();
    for (id, key) in (1..).zip(&minted) {
        let row = with_preauth_key(key).tailnet.preauth_keys().next().unwrap().clone();
        let id = PreauthKeyId(id);
        tailnet.put_preauth_key(Arc::new(PreauthKey { id, ..PreauthKey::clone(&row) }));
    }
    let snapshot = snapshot_of(tailnet);
    let verifier = Verifier::new(cheap()).unwrap();
    let verify = |text| verifier.verify_preauth(text, &snapshot);
    let one_key = join_all((0..KEYS).map(|_| verify(&minted[0].text))).await;
    assert!(one_key.iter().all(|found| *found == Ok(PreauthKeyId(1))));
    assert_eq!(verifier.hashes_computed(), 1);
    let many_keys = join_all(minted.iter().map(|key| verify(&key.text))).await;
    assert!(many_keys.iter().zip(1..).all(|(found, id)| *found == Ok(PreauthKeyId(id))));
    assert_eq!(verifier.hashes_computed(), KEYS);
    assert_eq!(verifier.recall_preauth(&minted[9].text, &snapshot), Some(PreauthKeyId(10)));
    let guessed = with_other_secret(&minted[9].text);
    assert_eq!(verifier.recall_preauth(&guessed, &snapshot), None);
}

#[test]
fn malformed_keys_are_refused() {
    let text = mint(KeyKind::Api, &cheap()).unwrap().text;
    let (head, secret) = text.rsplit_once('-').unwrap();
    let malformed = [
        String::new(),
        "tskey-api-".to_owned(),
        head.to_owned(),
        format!("{head}-"),
        format!("{text}a"),
        format!("{text}\n"),
        format!(" {text}"),
        format!("{head}--{secret}"),
        format!("{head}-{}", secret.to_uppercase()),
        format!("{head}-{}", "é".repeat(26)),
        text.replace("tskey-api", "tskey-auth"),
        format!("tskey-api-{}", "a".repeat(1 << 20)),
    ];
    for text in malformed {
        assert!(KeyText::parse(KeyKind::Api, &text).is_none(), "{text:.100}");
    }
    assert!(KeyText::parse(KeyKind::Api, &text).is_some());
}

#[tokio::test]
async fn a_key_verifies_and_is_hashed_once_and_never_by_who_has_minted_it() {
    let first = Verifier::new(cheap()).unwrap();
    let minted = first.mint(KeyKind::Preauth).await.unwrap();
    let snapshot = with_preauth_key(&minted);
    let restarted = Verifier::new(cheap()).unwrap();
    for (verifier, hashes) in [(&first, 0), (&restarted, 1)] {
        for _ in 0..3 {
            let verdict = verifier.verify_preauth(&minted.text, &snapshot).await;
            assert_eq!(verdict, Ok(PreauthKeyId(7)));
        }
        assert_eq!(verifier.hashes_computed(), hashes);
        assert_eq!(
            verifier.verify_api(&minted.text, &snapshot).await,
            Err(VerifyError::Malformed),
            "a preauth key does not open the API"
        );
    }
}

#[tokio::test]
async fn a_wrong_secret_is_refused_also_after_the_right_one_was_cached() {
    let verifier = Verifier::new(cheap()).unwrap();
    let minted = mint(KeyKind::Api, &cheap()).unwrap();
    let snapshot = with_api_key(&minted);
    assert_eq!(verifier.verify_api(&minted.text, &snapshot).await, Ok(ApiKeyId(7)));
    let wrong = with_other_secret(&minted.text);
    for round in 1..=3 {
        assert_eq!(verifier.verify_api(&wrong, &snapshot).await, Err(VerifyError::WrongSecret));
        assert_eq!(verifier.recall_api(&wrong, &snapshot), None);
        assert_eq!(verifier.hashes_computed(), 1 + round, "failures are not remembered");
    }
    assert_eq!(verifier.recall_api(&minted.text, &snapshot), Some(ApiKeyId(7)));
}

#[tokio::test]
async fn a_deleted_key_is_refused_also_when_it_was_cached() {
    let verifier = Verifier::new(cheap()).unwrap();
    let minted = mint(KeyKind::Api, &cheap()).unwrap();
    let snapshot = with_api_key(&minted);
    assert_eq!(verifier.verify_api(&minted.text, &snapshot).await, Ok(ApiKeyId(7)));
    let deleted = snapshot_of(Tailnet::default());
    assert_eq!(verifier.verify_api(&minted.text, &deleted).await, Err(VerifyError::UnknownKey));
    assert_eq!(verifier.recall_api(&minted.text, &deleted), None);
}

#[tokio::test]
async fn a_row_with_another_hash_is_another_generation() {
    let verifier = Verifier::new(cheap()).unwrap();
    let minted = mint(KeyKind::Api, &cheap()).unwrap();
    let snapshot = with_api_key(&minted);
    assert_eq!(verifier.verify_api(&minted.text, &snapshot).await, Ok(ApiKeyId(7)));
    let mut replaced = mint(KeyKind::Api, &cheap()).unwrap();
    replaced.secret.public_id = minted.secret.public_id.clone();
    let replaced = with_api_key(&replaced);
    assert_eq!(verifier.verify_api(&minted.text, &replaced).await, Err(VerifyError::WrongSecret));
}

#[tokio::test]
async fn an_unknown_key_costs_as_much_as_a_wrong_secret() {
    let verifier = Verifier::new(cheap()).unwrap();
    let minted = mint(KeyKind::Api, &cheap()).unwrap();
    let empty = snapshot_of(Tailnet::default());
    assert_eq!(verifier.verify_api(&minted.text, &empty).await, Err(VerifyError::UnknownKey));
    assert_eq!(verifier.hashes_computed(), 1);
}

#[tokio::test]
async fn the_same_text_is_verified_once_however_many_present_it() {
    let verifier = Arc::new(Verifier::new(HashCost::new(4096, 4).unwrap()).unwrap());
    let minted = mint(KeyKind::Api, &HashCost::new(4096, 4).unwrap()).unwrap();
    let snapshot = Arc::new(with_api_key(&minted));
    for text in [minted.text.clone(), with_other_secret(&minted.text)] {
        let before = verifier.hashes_computed();
        let expected =
            if text == minted.text { Ok(ApiKeyId(7)) } else { Err(VerifyError::WrongSecret) };
        let verifications = (0..100).map(|_| verifier.verify_api(&text, &snapshot));
        let verdicts = futures_util::future::join_all(verifications).await;
        assert!(verdicts.iter().all(|verdict| *verdict == expected));
        assert_eq!(verifier.hashes_computed() - before, 1);
    }
}

#[tokio::test]
async fn who_goes_away_leaves_nothing_behind_and_stops_nobody() {
    let flights = super::verified::Flights::default();
    let question = blake3::hash(b"question");
    let abandoned = flights.join(question, std::future::pending());
    let kept = flights.join(question, async { Ok(true) });
    tokio::pin!(kept);
    assert!(tokio::time::timeout(Duration::from_millis(5), abandoned).await.is_err());
    assert_eq!(kept.await, Ok(true));
    assert_eq!(flights.len(), 0);
}

#[tokio::test]
async fn when_too_many_wait_the_answer_is_busy() {
    let pool = Arc::new(pool::Pool::with_bounds(1, 1));
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let first = pool.run(move || blocked.recv());
    let second = pool.run(|| ());
    let third = pool.run(|| ());
    let (first, second, third) = tokio::join!(first, second, async {
        let verdict = third.await;
        release.send(()).unwrap();
        verdict
    });
    assert!(first.unwrap().is_ok());
    assert_eq!(second, Ok(()));
    assert_eq!(third, Err(pool::Busy));
}

#[test]
fn the_cache_is_bounded_and_keeps_what_is_used() {
    let keys = VerifiedKeys::default();
    let hash = mint(KeyKind::Api, &cheap()).unwrap().secret.hash;
    let digest = |number: usize| blake3::hash(&number.to_le_bytes());
    for number in 0..3 * VERIFIED_MAX {
        keys.insert(digest(number), hash.clone());
        assert!(keys.contains(&digest(0), &hash), "{number}");
    }
    assert!(keys.len() <= VERIFIED_MAX);
    assert!(!keys.contains(&digest(1), &hash));
    let other = mint(KeyKind::Api, &cheap()).unwrap().secret.hash;
    assert!(!keys.contains(&digest(0), &other), "another hash");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_too_often_has_to_wait() {
    let source: IpAddr = "192.0.2.1".parse().unwrap();
    for (error, max) in [
        (VerifyError::UnknownKey, UNKNOWN_KEYS_MAX),
        (VerifyError::Malformed, UNKNOWN_KEYS_MAX),
        (VerifyError::WrongSecret, WRONG_SECRETS_MAX),
    ] {
        let attempts = Attempts::new();
        for _ in 0..max {
            assert_eq!(attempts.wait(source), None);
            attempts.record(source, error);
        }
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(attempts.wait(source), Some(Duration::from_secs(40)));
        assert_eq!(attempts.wait("::ffff:192.0.2.1".parse().unwrap()), attempts.wait(source));
        assert_eq!(attempts.wait("192.0.2.2".parse().unwrap()), None);
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(attempts.wait(source), None);
    }
}

#[tokio::test]
async fn a_network_of_ipv6_addresses_is_one_source() {
    let attempts = Attempts::new();
    for host in 0..UNKNOWN_KEYS_MAX {
        attempts.record(format!("2001:db8::{host:x}").parse().unwrap(), VerifyError::UnknownKey);
    }
    assert!(attempts.wait("2001:db8::ffff".parse().unwrap()).is_some());
    assert!(attempts.wait("2001:db8:0:1::1".parse().unwrap()).is_none());
}
