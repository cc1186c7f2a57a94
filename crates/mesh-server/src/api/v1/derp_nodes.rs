//! `/derp/nodekey`: for relays that run on their own and serve our nodes alone.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use mesh_derp_verify::{KEEP_ALIVE_PERIOD, Line};
use tokio::time::sleep;

use crate::api::access::Author;
use crate::api::{Access, AppState};
use crate::derp_nodes::{KeyChanges, ServedKeys};

/// `GET /derp/nodekey`: the keys of all nodes that relays are to serve, then what changes of them, as lines of JSON
/// until the server stops or the API key no longer counts.
pub(super) async fn follow(
    State(state): State<AppState>,
    Extension(author): Extension<Author>,
) -> Response {
    let keys = ServedKeys::new(state.store.clone());
    let lines = Line::list(&keys.all()).collect();
    let feed = Feed { state, author, keys, lines };
    let lines = stream::unfold(feed, async |mut feed: Feed| {
        let line: Result<_, Infallible> = Ok(feed.next().await?);
        Some((line, feed))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/jsonl"),
        // nginx would wait for more.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(lines)).into_response()
}

/// What one relay still has to be told.
struct Feed {
    state: AppState,
    author: Author,
    keys: ServedKeys,
    /// What waits to be taken. Until it is, changes add up behind the cursor.
    lines: VecDeque<Line>,
}

impl Feed {
    /// The next line, as soon as there is one; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.lines.is_empty() {
            tokio::select! {
                // Rank: the end, news, signs of life.
                biased;
                () = self.state.stop.cancelled() => return None,
                changes = self.keys.changed() => {
                    let KeyChanges { admitted, removed } = changes?;
                    self.lines.extend(Line::change(&admitted, &removed));
                }
                () = sleep(KEEP_ALIVE_PERIOD) => self.lines.push_back(Line::default()),
            }
        }
        if !self.may_follow() {
            return None;
        }
        Some(self.lines.pop_front()?.encode())
    }

    /// Whether who asked still may.
    fn may_follow(&self) -> bool {
        match self.state.access {
            Access::Everybody => true,
            Access::ApiKeys => {
                let snapshot = self.state.store.snapshot();
                let key = snapshot.tailnet.api_key_by_public_id(&self.author.0);
                key.is_some_and(|key| key.is_valid(self.state.clock.now()))
            }
        }
    }
}
