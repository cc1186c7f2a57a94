//! A server whose policy file is invalid, empty or missing does not start, and says which file and what is wrong with it; with the
//! file repaired it starts, and the policy is in force.

use anyhow::{Result, ensure};
use mesh_integration::{Kind, Lab, Node, Server, Setup};

scenario!(refuse);

const CLOSED: &str = r#"{"acls": []}"#;

async fn refuse(lab: &Lab) -> Result<()> {
    let setup = Setup { policy_file: Some(CLOSED), ..Setup::default() };
    let server = Server::start(lab, setup).await?;
    server.stop().await?;
    for (text, reasons) in [
        ("{\"acls\": [}", &["1:11"][..]),
        ("{\"acsl\": []}", &["acsl"]),
        (
            r#"{"acls": [{"action": "accept", "src": ["group:admins"], "dst": ["tag:web:80"]}]}"#,
            &["acls[0].src[0]", "group:admins", "acls[0].dst[0]", "tag not found"],
        ),
        ("", &["empty"]),
    ] {
        server.write_policy_file(text)?;
        let refused = server.refuses_to_start().await?;
        eprintln!("{text}\n{}", refused.told);
        ensure!(refused.code == Some(1), "it ended with {:?}", refused.code);
        for reason in ["policy.hujson"].iter().chain(reasons) {
            let told = refused.told.matches(reason).count();
            ensure!(told == 1, "it says {reason} {told} times: {}", refused.told);
        }
    }

    server.write_policy_file(CLOSED)?;
    server.launch().await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    let _beta = Node::join(&server, "beta", Kind::default(), &key).await?;
    ensure!(alpha.status().await?.peers.is_empty(), "it sees others");
    server.stop().await
}
