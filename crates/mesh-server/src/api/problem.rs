//! Errors as the API tells them: problem details (RFC 7807), with the members that older clients read.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mesh_state::Refusal;
use mesh_store::SubmitError;
use serde::Serialize;

use crate::policy::PolicyError;
use crate::secrets::MintError;

/// How soon to come back when the server is short of something for a moment.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// An error, as the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    /// The parts of the request that are wrong.
    faults: Vec<Fault>,
    retry_after: Option<Duration>,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), faults: Vec::new(), retry_after: None }
    }

    /// 400: the request cannot be meant.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401: no valid credential.
    pub(super) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// 404: no such route.
    pub(super) fn unknown_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no such endpoint")
    }

    /// 404: no such version, or no longer.
    pub(super) fn unknown_policy_version() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no such version of the policy is kept: `GET /api/v1/policy/versions` lists them",
        )
    }

    /// 405: the route has other methods.
    pub(super) fn unknown_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "the endpoint does not have this method")
    }

    /// 409: what is there is in the way.
    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// 422: JSON of another shape than wanted, at this place of the request.
    pub(super) fn invalid(location: String, detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
        Self { faults: vec![Fault { message: problem.detail.clone(), location }], ..problem }
    }

    /// 429: wait this long.
    pub(super) fn too_many(detail: impl Into<String>, wait: Duration) -> Self {
        let retry_after = Some(wait);
        Self { retry_after, ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    /// 429: too much to do just now.
    pub(super) fn busy(detail: impl Into<String>) -> Self {
        Self::too_many(detail, RETRY_SOON)
    }

    /// 500: a command ended in an outcome of another command.
    pub(super) fn unexpected_outcome() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the change ended in an unexpected outcome")
    }

    /// 500: the server cannot do its work.
    pub(super) fn unhealthy() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the database does not answer")
    }

    /// 503: the work was ended.
    pub(super) fn stopping() -> Self {
        Self::unavailable("the server is stopping")
    }

    fn unavailable(detail: impl Into<String>) -> Self {
        let retry_after = Some(RETRY_SOON);
        Self { retry_after, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::UserNotFound
            | Refusal::NodeNotFound
            | Refusal::PreauthKeyNotFound
            | Refusal::ApiKeyNotFound
            | Refusal::LoginNotFound => StatusCode::NOT_FOUND,
            Refusal::InvalidName(_)
            | Refusal::NameTaken(_)
            | Refusal::UserHasNodes(_)
            | Refusal::NoTags
            | Refusal::NoOwner
            | Refusal::PreauthKeyUsed
            | Refusal::PreauthKeyExpired(_)
            | Refusal::PreauthKeyRevoked
            | Refusal::ExtendingExpiry
            | Refusal::TagsNotPermitted { .. }
            | Refusal::TagUndefined(_)
            | Refusal::PolicyTestsFailed(_) => StatusCode::BAD_REQUEST,
            Refusal::LoginRejected
            | Refusal::NodeKeyInUse
            | Refusal::AmbiguousOwnership
            | Refusal::Conflict => StatusCode::CONFLICT,
            Refusal::TooManyLogins => StatusCode::TOO_MANY_REQUESTS,
            Refusal::PolicyReplaced => StatusCode::PRECONDITION_FAILED,
            Refusal::AddressesExhausted(_) | Refusal::PoolExhausted | Refusal::NodeIdsExhausted => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, refusal.to_string())
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Refused(refusal) => refusal.into(),
            SubmitError::Unavailable(_) => Self::unavailable("the database is not available"),
            SubmitError::Busy => Self::busy(error.to_string()),
            SubmitError::TimedOut | SubmitError::Closed => Self::unavailable(error.to_string()),
        }
    }
}

impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Self {
        let problem = Self::bad_request(error.to_string());
        match error {
            PolicyError::Invalid(problems) => {
                let faults = problems.problems.iter().map(|problem| Fault {
                    message: problem.to_string(),
                    location: format!("body.policy:{}:{}", problem.line, problem.column),
                });
                Self { faults: faults.collect(), ..problem }
            }
            PolicyError::Empty | PolicyError::TestsFailed(_) => {
                let location = "body.policy".to_owned();
                Self {
                    faults: vec![Fault { message: problem.detail.clone(), location }],
                    ..problem
                }
            }
            PolicyError::Stopping => Self::unavailable(error.to_string()),
        }
    }
}

impl From<MintError> for Problem {
    fn from(error: MintError) -> Self {
        match error {
            MintError::Busy => Self::busy(error.to_string()),
            MintError::Randomness(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.faults,
            code: grpc_code(self.status),
            message: &self.detail,
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        let content_type = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, content_type);
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            // Rounded up, so that who obeys is let in.
            headers.insert(header::RETRY_AFTER, (wait.as_secs() + 1).into());
        }
        response
    }
}

/// `code` and `message` are what headscale answered before 0.30.
#[derive(Serialize)]
struct Body<'a> {
    title: &'a str,
    status: u16,
    detail: &'a str,
    errors: &'a [Fault],
    code: u8,
    message: &'a str,
}

/// A part of the request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Fault {
    message: String,
    /// As `body.user`; in a policy with line and column, as `body.policy:12:7`.
    location: String,
}

/// The gRPC status that a gateway turns into this HTTP status.
///
/// Source: grpc `doc/statuscodes.md`, grpc-gateway `runtime/errors.go`.
fn grpc_code(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 | 413 | 422 => 3,
        401 => 16,
        404 => 5,
        405 => 12,
        409 => 6,
        412 => 9,
        429 => 8,
        503 => 14,
        _ => 13,
    }
}
