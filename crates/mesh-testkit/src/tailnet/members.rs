//! Who is in the tailnet, and what each is told of it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_keys::NodePublic;
use mesh_wire::{
    DerpMap, DnsConfig, FilterRule, MapRequest, MapResponse, NetPortRange, Node, NodeId, PortRange,
    RegisterRequest, UserId, UserProfile,
};

const OWNER: UserId = UserId(1);

const DOMAIN: &str = "example.ts.net";

/// The nodes, in the order in which they came. Those that have left leave a gap.
#[derive(Debug, Default)]
pub(super) struct Members(Vec<Option<Node>>);

impl Members {
    pub(super) fn knows(&self, key: NodePublic) -> bool {
        self.position(key).is_some()
    }

    /// Takes a node in, or gives one that is there its other key.
    pub(super) fn register(&mut self, request: RegisterRequest) {
        let known = self.position(request.node_key).or_else(|| self.position(request.old_node_key));
        let index = known.unwrap_or(self.0.len());
        if known.is_none() {
            self.0.push(None);
        }
        let id = u8::try_from(index + 1).expect("an example has few nodes");
        let hostinfo = request.hostinfo.unwrap_or_default();
        let v6 = [0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, u16::from(id)];
        let addresses: Vec<IpNet> =
            vec![IpAddr::from([100, 64, 0, id]).into(), IpAddr::from(v6).into()];
        let mut allowed_ips = addresses.clone();
        allowed_ips.extend(&hostinfo.routable_ips);
        self.0[index] = Some(Node {
            id: NodeId(id.into()),
            stable_id: format!("n{id}"),
            name: format!("{}.{DOMAIN}.", hostinfo.hostname),
            user: OWNER,
            key: request.node_key,
            addresses,
            allowed_ips: Some(allowed_ips),
            tags: hostinfo.request_tags.clone(),
            machine_authorized: true,
            online: Some(true),
            hostinfo: Some(Arc::from(hostinfo)),
            ..Node::default()
        });
    }

    pub(super) fn remove(&mut self, key: NodePublic) {
        if let Some(index) = self.position(key) {
            self.0[index] = None;
        }
    }

    /// Takes over what a node tells of itself.
    pub(super) fn update(&mut self, request: &MapRequest) {
        let Some(index) = self.position(request.node_key) else { return };
        let Some(node) = &mut self.0[index] else { return };
        node.disco_key = request.disco_key;
        if !request.stream {
            node.endpoints.clone_from(&request.endpoints);
            let net_info =
                request.hostinfo.as_ref().and_then(|hostinfo| hostinfo.net_info.as_ref());
            node.home_derp = net_info.map(|info| info.preferred_derp).unwrap_or_default();
        }
    }

    /// All that a node is to be told: itself, all others, and that everybody may reach everybody. `None` if it is not there.
    pub(super) fn map_for(&self, key: NodePublic, derp_map: &Arc<DerpMap>) -> Option<MapResponse> {
        let own = self.0[self.position(key)?].clone()?;
        let others = self.0.iter().flatten().filter(|node| node.key != key);
        let gone = (1..).zip(&self.0).filter(|(_, node)| node.is_none());
        let all = NetPortRange { ip: "*".into(), ports: PortRange::ANY };
        let rule = FilterRule {
            src_ips: ["*".into()].into(),
            dst_ports: vec![all],
            ..FilterRule::default()
        };
        Some(MapResponse {
            peers_changed: others.cloned().collect(),
            peers_removed: gone.map(|(id, _)| NodeId(id)).collect(),
            node: Some(Box::new(own)),
            derp_map: Some(Arc::clone(derp_map)),
            dns_config: Some(DnsConfig::default()),
            domain: DOMAIN.to_owned(),
            packet_filter: Some(vec![rule]),
            user_profiles: vec![UserProfile {
                id: OWNER,
                login_name: "alice@example.com".to_owned(),
                display_name: "Alice".to_owned(),
                ..UserProfile::default()
            }],
            ..MapResponse::default()
        })
    }

    fn position(&self, key: NodePublic) -> Option<usize> {
        let has_key = |node: &Option<Node>| node.as_ref().is_some_and(|node| node.key == key);
        self.0.iter().position(has_key)
    }
}
