//! `meshcontrol health`.

use mesh_server::api::v1::Health;

use crate::session::Session;

pub(crate) async fn run(session: &Session) -> anyhow::Result<()> {
    let health: Health = session.client()?.get(&["health"], &[]).await?;
    session.output().value(&health, || "The server works and its database answers".to_owned())
}
