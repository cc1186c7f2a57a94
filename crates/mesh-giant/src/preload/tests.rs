use mesh_testkit::MemoryDatabase;

use super::*;

/// What a server loads from a database that was filled.
async fn filled(seed: u64, nodes: u32) -> mesh_model::Tailnet {
    let database = MemoryDatabase::default();
    fill(&database, Population::new(seed, 3, 2, 30), nodes).await.unwrap();
    database.load(TAILNET).await.unwrap().tailnet
}

#[tokio::test]
async fn every_node_is_announced_and_offline() {
    let tailnet = filled(1, 200).await;
    assert_eq!(tailnet.node_count(), 200);
    assert_eq!(tailnet.users().count(), 3);
    for node in tailnet.nodes() {
        assert!(node.is_announced() && node.last_seen_at.is_some(), "{node:?}");
        assert_eq!(node.addresses().count(), 2);
        assert!(!node.endpoints.is_empty());
    }
    let tagged = tailnet.nodes().filter(|node| !node.owner.tags().is_empty()).count();
    assert!(tagged > 0 && tagged < tailnet.node_count());
}

#[tokio::test]
async fn a_seed_makes_the_same_rows_every_time() {
    let rows = |tailnet: mesh_model::Tailnet| tailnet.nodes().cloned().collect::<Vec<_>>();
    assert_eq!(rows(filled(5, 50).await), rows(filled(5, 50).await));
    assert_ne!(rows(filled(5, 50).await), rows(filled(6, 50).await));
}

#[tokio::test]
async fn a_database_that_is_not_empty_is_left_alone() {
    let database = MemoryDatabase::default();
    fill(&database, Population::new(1, 1, 0, 0), 1).await.unwrap();
    let again = fill(&database, Population::new(1, 1, 0, 0), 1).await;
    assert!(again.unwrap_err().to_string().contains("name an empty one"));
    assert_eq!(database.load(TAILNET).await.unwrap().tailnet.node_count(), 1);
}
