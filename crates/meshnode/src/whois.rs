//! `meshnode whois`.

use std::net::SocketAddr;

use clap::Args;
use mesh_cli::{Output, list, properties};
use mesh_node::loopback::WhoIsResponse;
use mesh_wire::RawJson;

use crate::client::LocalClient;

#[derive(Debug, Args)]
pub(crate) struct WhoisArgs {
    /// An address, also with the port of a connection, or a name
    #[arg(value_name = "ADDRESS")]
    who: String,
}

impl WhoisArgs {
    pub(crate) async fn run(self, client: &LocalClient, output: Output) -> anyhow::Result<()> {
        let address = match self.who.parse::<SocketAddr>() {
            Ok(address) => address.ip(),
            Err(_) => client.resolve(&self.who).await?,
        };
        let who = client.who_is(&address.to_string()).await?;
        output.value(&who, || show(&who))
    }
}

fn show(WhoIsResponse { node, user_profile, cap_map }: &WhoIsResponse) -> String {
    let addresses = node.addresses.iter().map(|address| address.addr().to_string());
    let addresses: Vec<String> = addresses.collect();
    let user = match (&user_profile.login_name, &user_profile.display_name) {
        (login, name) if login == name || name.is_empty() => login.clone(),
        (login, name) => format!("{name} ({login})"),
    };
    let capabilities = cap_map.iter().map(|(name, values)| {
        let values = values.iter().flatten().map(RawJson::get);
        ("Capability", format!("{name} {}", values.collect::<Vec<_>>().join(", ")))
    });
    let rows = [
        ("Node", node.name.trim_end_matches('.').to_owned()),
        ("Addresses", list(&addresses)),
        ("Id", node.stable_id.clone()),
        match list(&node.tags) {
            tags if tags.is_empty() => ("User", user),
            tags => ("Tags", tags),
        },
    ];
    properties(rows.into_iter().chain(capabilities))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_shown_with_its_owner_and_what_it_may_do() {
        let json = r#"{
            "Node": {"Name": "web.example.", "StableID": "7", "Addresses": ["100.64.0.2/32"]},
            "UserProfile": {"LoginName": "alice", "DisplayName": "Alice A."},
            "CapMap": {"example.com/cap/db": [{"role": "reader"}]}
        }"#;
        let who: WhoIsResponse = serde_json::from_str(json).unwrap();
        assert_eq!(
            show(&who),
            "\
Node:        web.example
Addresses:   100.64.0.2
Id:          7
User:        Alice A. (alice)
Capability:  example.com/cap/db {\"role\": \"reader\"}"
        );
    }
}
