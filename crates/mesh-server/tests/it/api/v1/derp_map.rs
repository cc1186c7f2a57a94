use serde_json::json;

use crate::api::Server;

#[tokio::test]
async fn the_map_of_clients_is_shown_as_they_get_it() {
    let region = json!({ "RegionID": 900, "RegionCode": "", "RegionName": "", "Nodes": [] });
    let map = Server::start().get("/derp/map").await;
    assert_eq!(map, json!({ "Regions": { "900": region } }));
}
