//! Whom the policy trusts with a route may carry it, and whatever is part of it, as soon as it offers to; a policy that
//! trusts it with more is felt at once. Nothing else that it offers is approved, and of what it carries users reach what
//! they may.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Kind, Lab, Node, Server, Setup, eventually};

scenario!(trust);

const ONE: &str = "10.77.3.0/24";
const OTHER: &str = "10.88.0.0/24";

async fn trust(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.set_policy(&policy("10.77.0.0/16")).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &[]).await?;
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    let key = server.tagged_key("tag:router").await?;
    let router = Node::join(&server, "router", Kind::default(), &key).await?;
    alpha.accept_routes().await?;
    alpha.reaches("router").await?;
    router.reaches("alpha").await?;
    for route in [ONE, OTHER] {
        router.serve_route(route).await?;
    }

    router.advertise_routes(&[ONE, OTHER]).await?;
    alpha.routed_by("router", ONE).await?;
    alpha.until_open("10.77.3.9:8080".parse()?).await?;
    alpha.until_refused("10.77.3.9:8081".parse()?).await?;
    let record = server.node("router").await?;
    ensure!(record.available_routes == [ONE, OTHER], "{record:?}");
    ensure!(record.approved_routes == [ONE], "{record:?}");
    let peer = alpha.status().await?.peer("router")?.clone();
    ensure!(peer.primary_routes == [ONE], "{peer:?}");
    alpha.until_refused("10.88.0.9:8080".parse()?).await?;

    server.set_policy(&policy("10.64.0.0/10")).await?;
    alpha.routed_by("router", OTHER).await?;
    alpha.until_open("10.88.0.9:8080".parse()?).await?;
    eventually(Duration::from_secs(5), "both are approved", async || {
        let record = server.node("router").await?;
        ensure!(record.approved_routes == [ONE, OTHER], "{record:?}");
        Ok(())
    })
    .await
}

fn policy(trusted: &str) -> String {
    format!(
        r#"{{
            "tagOwners": {{"tag:router": []}},
            "acls": [
                {{"action": "accept", "src": ["alice@"], "dst": ["tag:router:22"]}},
                {{"action": "accept", "src": ["alice@"], "dst": ["10.64.0.0/10:8080"]}},
            ],
            "autoApprovers": {{"routes": {{"{trusted}": ["tag:router"]}}}},
        }}"#
    )
}
