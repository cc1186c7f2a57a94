//! Reading the member list.

use super::{Layer, Listed, list_members};

const MANIFEST: &str = r#"[workspace]
members = [
    # 0 words
    "crates/mesh-keys",  # keys
    # 1 cores: no tokio,
    # no sockets
    "crates/mesh-noise",
    # aside
    "integration",       # real clients
]
default-members = ["crates/meshcontrol"]
"#;

#[test]
fn members_stand_under_the_last_layer_named_above_them() {
    let listed = |path: &str, layer, has_comment, line| Listed {
        path: path.to_owned(),
        layer: Some(layer),
        has_comment,
        line,
    };
    assert_eq!(
        list_members(MANIFEST),
        [
            listed("crates/mesh-keys", Layer::Numbered(0), true, 4),
            listed("crates/mesh-noise", Layer::Numbered(1), false, 7),
            listed("integration", Layer::Aside, true, 9),
        ]
    );
}
