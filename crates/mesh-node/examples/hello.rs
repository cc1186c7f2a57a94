//! A web server in a tailnet that greets whoever calls by name.
//!
//! ```text
//! TS_CONTROL_URL=http://127.0.0.1:8080 TS_AUTHKEY=tskey-auth-... cargo run -p mesh-node --example hello
//! curl http://hello                  (on another node)
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::error::Error;

use mesh_node::{Node, WhoIs};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).init();
    let node = Node::builder().hostname("hello").ephemeral(true).build().await?;
    let status = node.up().await?;
    let name = status.node.map(|node| node.name).unwrap_or_default();
    println!("http://{} greets", name.trim_end_matches('.'));
    let mut listener = node.listen(80)?;
    loop {
        let (mut stream, caller) = listener.accept().await?;
        let who = node.who_is(caller.ip()).await?;
        tokio::spawn(async move {
            // What is asked for does not matter: one read takes the request of any browser.
            let mut request = [0; 4096];
            if stream.read(&mut request).await? > 0 {
                stream.write_all(answer(who).as_bytes()).await?;
            }
            stream.shutdown().await
        });
    }
}

fn answer(who: Option<WhoIs>) -> String {
    let greeting = match who {
        Some(WhoIs { node, user_profile, .. }) => {
            let owner = user_profile.map(|profile| profile.display_name).unwrap_or_default();
            format!("Hello, {owner} on {}\n", node.name.trim_end_matches('.'))
        }
        None => "Hello, whoever you are\n".to_owned(),
    };
    let length = greeting.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{greeting}"
    )
}
