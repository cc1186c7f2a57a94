//! Takes requests apart; what does not fit is answered with a [`Problem`].

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::{DeserializeOwned, Deserializer};
use serde::{Deserialize, de};

use mesh_model::{Timestamp, truncate_to_millis};

use super::Problem;

/// A JSON body, whatever its content type; an empty one reads as `{}`. Members that nobody knows are
/// ignored, and `null` is the same as absent.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state).await?;
        let json = if bytes.is_empty() { b"{}" } else { bytes.trim_ascii_start() };
        // Otherwise serde would take a list's elements for members.
        if json.first() == Some(&b'[') {
            return Err(Problem::invalid("body".to_owned(), "body: a JSON object is wanted"));
        }
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            wrong_json(&path, error.inner())
        })?;
        deserializer.end().map_err(|error| wrong_json(".", &error))?;
        Ok(Self(value))
    }
}

fn wrong_json(path: &str, error: &serde_json::Error) -> Problem {
    if error.is_data() {
        let location = if path == "." { "body".to_owned() } else { format!("body.{path}") };
        Problem::invalid(location.clone(), format!("{location}: {error}"))
    } else {
        Problem::bad_request(format!("the body is not JSON: {error}"))
    }
}

/// The parameters in a path.
#[derive(Debug)]
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let axum::extract::Path(value) =
            axum::extract::Path::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

/// The parameters of a query. Empty ones count as absent, for so clients send what they do not mean.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let axum::extract::Query(value) =
            axum::extract::Query::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

/// For members that may be absent, `null` or the type's default, which all mean the same.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An optional text; an empty one is none.
pub(super) fn optional_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// An optional instant in RFC 3339, cut to milliseconds; the zero time of Go's clients is none.
pub(super) fn optional_instant<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Timestamp>, D::Error> {
    let Some(text) = optional_text(deserializer)? else { return Ok(None) };
    let instant: Timestamp = text.parse().map_err(|_| {
        de::Error::custom(format_args!(
            "`{text:.40}` is not an RFC 3339 time such as 2030-01-31T12:00:00Z"
        ))
    })?;
    Ok((instant != GO_ZERO_TIME).then(|| truncate_to_millis(instant)))
}

/// 0001-01-01T00:00:00Z.
pub(super) const GO_ZERO_TIME: Timestamp = Timestamp::constant(-62_135_596_800, 0);
