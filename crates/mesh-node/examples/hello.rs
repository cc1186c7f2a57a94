//! A web server in a tailnet that greets whoever calls by name.
//!
//! ```text
//! TS_CONTROL_URL=http://127.0.0.1:8080 TS_AUTHKEY=tskey-auth-... cargo run -p mesh-node --features axum --example hello
//! curl http://hello                  (on another node)
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::error::Error;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::routing::get;
use mesh_node::{AxumListener, Caller, Node, WhoIs};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).init();
    let node = Node::builder().hostname("hello").ephemeral(true).build().await?;
    let status = node.up().await?;
    let name = status.node.map(|node| node.name).unwrap_or_default();
    println!("http://{} greets", name.trim_end_matches('.'));
    let listener = AxumListener::from(node.listen(80)?);
    let router = Router::new().route("/", get(greet)).with_state(Arc::new(node));
    axum::serve(listener, router.into_make_service_with_connect_info::<Caller>()).await?;
    Ok(())
}

async fn greet(State(node): State<Arc<Node>>, ConnectInfo(caller): ConnectInfo<Caller>) -> String {
    match node.who_is(caller.0.ip()).await {
        Ok(Some(WhoIs { node, user_profile, .. })) => {
            let owner = user_profile.map(|profile| profile.display_name).unwrap_or_default();
            format!("Hello, {owner} on {}\n", node.name.trim_end_matches('.'))
        }
        Ok(None) | Err(_) => "Hello, whoever you are\n".to_owned(),
    }
}
