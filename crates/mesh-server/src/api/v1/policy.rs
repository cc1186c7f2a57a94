//! `/policy`: who may reach whom.
//!
//! Beyond headscale: versions with who wrote them, `ETag` and `If-Match` against lost updates, and what a policy would do.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::{Extension, Json};
use ipnet::IpNet;
use mesh_model::{Node, NodeId, PolicyVersion, Timestamp};
use mesh_policy::{
    CompiledPolicy, Explanation, POLICY_BYTES_MAX, Party, PolicyDiff, Question, TestReport,
};
use mesh_state::{Command, NewPolicy, Outcome, Snapshot, policy_digest};
use serde::{Deserialize, Serialize};

use super::{Done, find_node};
use crate::api::access::Author;
use crate::api::extract::{Body, Path, or_default};
use crate::api::{AppState, Problem};
use crate::metrics::PolicySource;
use crate::policy::{CheckedPolicy, PolicyError, check_policy, read_policy};

/// Longest body of a request with a policy in it, in bytes: in JSON a text is longer, seldom by half.
pub(super) const POLICY_BODY_BYTES_MAX: usize = 2 * POLICY_BYTES_MAX;

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyAnswer {
    /// Its text as it was written; empty while there is none, and for a client that prefers `return=minimal`.
    pub policy: String,
    /// When it was put in force; `null` while there is none.
    pub updated_at: Option<Timestamp>,
    /// Who wrote it: the public id of an API key, `cli` or `file`; empty while there is none.
    pub updated_by: String,
    /// Id of the version, decimal; `0` while there is none.
    pub version: String,
    /// BLAKE3 of the text in hex; in quotes, the answer's `ETag`.
    pub digest: String,
    /// `database` or `file`: where it is to be changed.
    pub mode: String,
    /// Why the file as it is now is not in force; `null` if it is, or if there is none.
    pub problem: Option<String>,
}

impl PolicyAnswer {
    fn new(version: Option<&PolicyVersion>, state: &AppState) -> Self {
        let policy = version.map_or_else(String::new, |version| version.text.clone());
        Self { policy, ..Self::without_text(version, state) }
    }

    fn without_text(version: Option<&PolicyVersion>, state: &AppState) -> Self {
        let file = state.policy_file.as_ref();
        Self {
            policy: String::new(),
            updated_at: version.map(|version| version.created_at),
            updated_by: version.map_or_else(String::new, |version| version.created_by.clone()),
            version: version.map_or(0, |version| version.id.0).to_string(),
            digest: version.map_or_else(|| policy_digest(""), |version| version.digest.clone()),
            mode: if file.is_some() { "file" } else { "database" }.to_owned(),
            problem: file.and_then(|file| file.problem.borrow().clone()),
        }
    }

    fn with_tag(self) -> Tagged {
        let tag = HeaderValue::try_from(format!("\"{}\"", self.digest));
        ([(header::ETAG, tag.expect("invariant: hex digits in quotes"))], Json(self))
    }
}

/// An answer that names what it shows.
type Tagged = ([(HeaderName, HeaderValue); 1], Json<PolicyAnswer>);

/// `GET /policy`.
pub(super) async fn show(State(state): State<AppState>) -> Tagged {
    let snapshot = state.store.snapshot();
    PolicyAnswer::new(snapshot.tailnet.policy_version().map(|version| &**version), &state)
        .with_tag()
}

/// A policy in a request: as it is if the request says that it is HuJSON, else in a JSON object.
#[derive(Debug, Deserialize)]
pub(super) struct Text {
    #[serde(default, deserialize_with = "or_default")]
    policy: String,
}

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_hujson(request.headers()) {
            return Body::from_request(request, state).await.map(|Body(text)| text);
        }
        let bytes = Bytes::from_request(request, state).await?;
        let policy = String::from_utf8(bytes.into());
        policy
            .map(|policy| Self { policy })
            .map_err(|_| Problem::bad_request("the policy is not UTF-8"))
    }
}

/// Whether a body is a policy as it is, which spares both sides to put a long text into JSON and take it out.
///
/// Source: the type that clients of Tailscale's own API give to policies.
fn is_hujson(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|value| value.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/hujson"))
}

/// Whether a client can do without the text that it has just sent. Source: RFC 7240, section 4.2.
fn wants_little(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all("prefer").into_iter().filter_map(|value| value.to_str().ok());
    preferences
        .flat_map(|value| value.split(','))
        .any(|preference| preference.trim().eq_ignore_ascii_case("return=minimal"))
}

/// `PUT /policy`: if `If-Match` is given, only in place of the text it names.
pub(super) async fn set(
    State(state): State<AppState>,
    Extension(Author(created_by)): Extension<Author>,
    headers: HeaderMap,
    Text { policy: text }: Text,
) -> Result<Tagged, Problem> {
    if let Some(file) = &state.policy_file {
        let path = file.path.display();
        return Err(Problem::bad_request(format!("the policy is the file {path}: edit that")));
    }
    let replaces = replaced(&headers)?;
    let version = put_in_force(&state, text, created_by, replaces).await;
    state.metrics.policy_reloaded(PolicySource::Api, version.is_ok());
    let version = version?;
    tracing::info!(
        policy.version = version.id.0,
        policy.by = version.created_by,
        "the policy was set"
    );
    let answer =
        if wants_little(&headers) { PolicyAnswer::without_text } else { PolicyAnswer::new };
    Ok(answer(Some(&version), &state).with_tag())
}

async fn put_in_force(
    state: &AppState,
    text: String,
    created_by: String,
    replaces: Option<String>,
) -> Result<Arc<PolicyVersion>, Problem> {
    let CheckedPolicy { text, policy, .. } = check_policy(text, state.store.snapshot()).await?;
    let new = NewPolicy { text, policy, created_by, replaces };
    let outcome = state.store.submit(Command::SetPolicy(Box::new(new))).await?;
    let Outcome::Policy(version) = outcome else { return Err(Problem::unexpected_outcome()) };
    Ok(version)
}

/// The digest in an `If-Match` header; `None` if any text may be replaced.
fn replaced(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    match value.to_str().map(str::trim) {
        Ok("*") => Ok(None),
        Ok(tag) if !tag.contains(',') => Ok(Some(tag.trim_matches('"').to_owned())),
        Ok(_) | Err(_) => Err(Problem::bad_request("If-Match: give the ETag of one answer")),
    }
}

/// `POST /policy/check`: whether `PUT` would take it.
pub(super) async fn check(
    State(state): State<AppState>,
    Text { policy }: Text,
) -> Result<Json<Done>, Problem> {
    check_policy(policy, state.store.snapshot()).await?;
    Ok(Json(Done {}))
}

/// A version of the policy, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyVersionHead {
    /// Decimal.
    pub id: String,
    /// BLAKE3 of the text in hex.
    pub digest: String,
    /// Length of the text.
    pub bytes: usize,
    /// When it was put in force.
    pub created_at: Timestamp,
    /// Who wrote it: the public id of an API key, `cli` or `file`.
    pub created_by: String,
}

/// The versions that are kept, by id: the last one is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVersionList {
    /// All of them.
    pub versions: Vec<PolicyVersionHead>,
}

/// `GET /policy/versions`.
pub(super) async fn versions(State(state): State<AppState>) -> Json<PolicyVersionList> {
    let head = |version: &Arc<PolicyVersion>| PolicyVersionHead {
        id: version.id.to_string(),
        digest: version.digest.clone(),
        bytes: version.text.len(),
        created_at: version.created_at,
        created_by: version.created_by.clone(),
    };
    let snapshot = state.store.snapshot();
    Json(PolicyVersionList { versions: snapshot.tailnet.policy_versions().map(head).collect() })
}

/// `GET /policy/versions/{id}`.
pub(super) async fn version(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Tagged, Problem> {
    let snapshot = state.store.snapshot();
    let mut versions = snapshot.tailnet.policy_versions();
    let version = versions.find(|version| version.id.to_string() == id);
    let version = version.ok_or_else(Problem::unknown_policy_version)?;
    Ok(PolicyAnswer::new(Some(version), &state).with_tag())
}

/// What came of a policy's own tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestAnswer {
    /// Whether all passed.
    pub passed: bool,
    /// All of them.
    #[serde(flatten)]
    pub report: WithText<TestReport>,
}

/// `POST /policy/test`: runs the tests of a policy, or without one those of the policy in force.
pub(super) async fn test(
    State(state): State<AppState>,
    Text { policy }: Text,
) -> Result<Json<TestAnswer>, Problem> {
    let report = ask(&state, policy, |_, compiled| Ok(compiled.run_tests())).await?;
    let passed = report.passed();
    let report = WithText { text: format!("{report:#}"), answer: report };
    Ok(Json(TestAnswer { passed, report }))
}

/// Whether somebody reaches something.
#[derive(Debug, Deserialize)]
pub(super) struct Ask {
    /// A node by id or name, or a selector.
    #[serde(default, deserialize_with = "or_default")]
    src: String,
    /// The same; a port may follow: `tag:db:5432`, `[fd7a::1]:80`.
    #[serde(default, deserialize_with = "or_default")]
    dst: String,
    /// A protocol by name or number; the default set if empty.
    #[serde(default, deserialize_with = "or_default")]
    proto: String,
    /// The text to ask about; empty for the policy in force.
    #[serde(default, deserialize_with = "or_default")]
    policy: String,
}

/// An answer for programs, with its text for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WithText<T> {
    /// For people.
    pub text: String,
    /// For programs.
    #[serde(flatten)]
    pub answer: T,
}

impl<T: fmt::Display> WithText<T> {
    fn new(answer: T) -> Json<Self> {
        Json(Self { text: answer.to_string(), answer })
    }
}

/// `POST /policy/explain`: which rules let somebody reach something, or why none does.
pub(super) async fn explain(
    State(state): State<AppState>,
    Body(Ask { src, dst, proto, policy }): Body<Ask>,
) -> Result<Json<WithText<Explanation>>, Problem> {
    let proto = if proto.is_empty() { None } else { Some(Question::parse_protocol(&proto)) };
    let proto = proto.transpose().map_err(|error| at("proto", error))?;
    let question = move |snapshot: &Snapshot, compiled: &CompiledPolicy| {
        let (dst, port) = split_port(&dst);
        let party = |name, text| party(snapshot, compiled, text).map_err(|error| at(name, error));
        let (src, dst) = (party("src", &src)?, party("dst", dst)?);
        Ok(compiled.explain(&Question { src, dst, port, proto }))
    };
    Ok(WithText::new(ask(&state, policy, question).await?))
}

fn at(member: &str, error: String) -> Problem {
    Problem::invalid(format!("body.{member}"), error)
}

/// What a text means: addresses, a selector, the node of this id or name, or else a host of the policy.
fn party(snapshot: &Snapshot, compiled: &CompiledPolicy, text: &str) -> Result<Party, String> {
    match find_node(&snapshot.tailnet, text) {
        Ok(node) => Ok(Party::Node(node.id)),
        Err(_) => Party::parse(compiled.policy(), text),
    }
}

/// Takes the port off the end of a destination, if it has one. An IPv6 address has none unless it is in brackets.
fn split_port(text: &str) -> (&str, Option<u16>) {
    let is_address = text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok();
    let Some((head, port)) = text.rsplit_once(':').filter(|_| !is_address) else {
        return (text, None);
    };
    match port.parse() {
        Ok(port) => (head.trim_start_matches('[').trim_end_matches(']'), Some(port)),
        Err(_) => (text, None),
    }
}

/// `POST /policy/diff`: who would gain and lose what by a policy.
pub(super) async fn diff(
    State(state): State<AppState>,
    Text { policy }: Text,
) -> Result<Json<WithText<PolicyDiff>>, Problem> {
    let question = |snapshot: &Snapshot, compiled: &CompiledPolicy| {
        let mut diff = snapshot.policy.diff(compiled);
        let pending: Vec<(NodeId, Vec<IpNet>)> = snapshot.tailnet.nodes().map(pending).collect();
        diff.add_approvals(compiled, pending.iter().map(|(node, routes)| (*node, &**routes)));
        Ok(diff)
    };
    Ok(WithText::new(ask(&state, policy, question).await?))
}

/// The routes that a node offers and that are not approved.
fn pending(node: &Arc<Node>) -> (NodeId, Vec<IpNet>) {
    let offered = node.hostinfo.routable_ips.iter().map(IpNet::trunc);
    (node.id, offered.filter(|route| !node.approved_routes.contains(route)).collect())
}

/// Asks something of a policy as it would be compiled for the tailnet, or without a text of the policy in force. Off
/// the reactor, for it may take a while.
async fn ask<T: Send + 'static>(
    state: &AppState,
    text: String,
    question: impl FnOnce(&Snapshot, &CompiledPolicy) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let snapshot = state.store.snapshot();
    let answer = move || {
        if text.is_empty() {
            return question(&snapshot, &snapshot.policy);
        }
        question(&snapshot, &snapshot.policy.recompiled(read_policy(&text)?))
    };
    tokio::task::spawn_blocking(answer).await.unwrap_or_else(|_| Err(PolicyError::Stopping.into()))
}
