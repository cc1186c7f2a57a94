//! Who carries which route, and to whom it is shown.

use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::NodeId;
use roaring::RoaringBitmap;
use rpds::RedBlackTreeMapSync;

use crate::compiled::{Class, CompiledPolicy};
use crate::delta::PolicyDelta;
use crate::facts::NodeFacts;
use crate::program::{Atom, Atoms, Kind, Via};

/// An active route of the tailnet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Route {
    /// The nodes that carry it, by id; never empty.
    pub(crate) advertisers: Vec<NodeId>,
    /// The one that traffic goes to: it stays while it can, then the lowest id that is online follows. Exit routes have
    /// none.
    pub(crate) primary: Option<NodeId>,
    /// What addresses inside the prefix are hit by.
    pub(crate) atoms: Atoms,
    /// Nodes whose addresses lie inside the prefix.
    pub(crate) covered: Arc<[NodeId]>,
}

impl CompiledPolicy {
    /// Takes a node's routes from `old` to `new`, which may be the same if the node went on- or offline.
    pub(crate) fn move_routes(
        &mut self,
        id: NodeId,
        old: &[IpNet],
        new: &[IpNet],
        delta: &mut PolicyDelta,
    ) {
        for prefix in old.iter().chain(new.iter().filter(|route| !old.contains(route))) {
            self.move_route(id, *prefix, new.contains(prefix), delta);
        }
    }

    fn move_route(&mut self, id: NodeId, prefix: IpNet, is_carried: bool, delta: &mut PolicyDelta) {
        let known = self.routes.get(&prefix).cloned();
        let mut route = known.as_deref().cloned().unwrap_or_default();
        delta.routers.insert(id.0);
        delta.routers.extend(route.advertisers.iter().map(|id| id.0));
        match (route.advertisers.binary_search(&id), is_carried) {
            (Err(place), true) => route.advertisers.insert(place, id),
            (Ok(place), false) => {
                route.advertisers.remove(place);
            }
            (Ok(_), true) | (Err(_), false) => {}
        }
        if prefix.prefix_len() > 0 {
            route.primary = self.elect(&route);
        }
        if route.advertisers.is_empty() {
            self.routes.remove_mut(&prefix);
        } else {
            if known.is_none() {
                (route.atoms, route.covered) = self.hits_of_route(prefix);
            }
            self.routes.insert_mut(prefix, Arc::new(route));
        }
        if known.is_none() || !self.routes.contains_key(&prefix) {
            self.note_routes(prefix, delta);
        }
    }

    /// Notes that a prefix came or went.
    fn note_routes(&mut self, prefix: IpNet, delta: &mut PolicyDelta) {
        if prefix.prefix_len() == 0 {
            return;
        }
        self.routes_stamp = self.program.next_stamp();
        self.forget_firsts();
        self.name_receivers_of_everybody(delta);
        if self.address_bounds.may_overlap(&prefix) {
            self.find_covering_routes();
        }
    }

    fn elect(&self, route: &Route) -> Option<NodeId> {
        let is_online = |id: &NodeId| self.node(*id).is_some_and(|node| node.online);
        let incumbent = route.primary.filter(|id| route.advertisers.contains(id) && is_online(id));
        incumbent.or_else(|| route.advertisers.iter().copied().find(is_online))
    }

    /// Lets the primaries of earlier routes go on where they can.
    pub(crate) fn keep_primaries(&mut self, earlier: &RedBlackTreeMapSync<IpNet, Arc<Route>>) {
        let kept: Vec<(IpNet, Arc<Route>)> = self
            .routes
            .iter()
            .filter_map(|(prefix, route)| {
                let primary = earlier.get(prefix)?.primary?;
                let route = Route { primary: Some(primary), ..Route::clone(route) };
                (self.elect(&route) == Some(primary)).then(|| (*prefix, Arc::new(route)))
            })
            .collect();
        for (prefix, route) in kept {
            self.routes.insert_mut(prefix, route);
        }
    }

    pub(crate) fn find_covering_routes(&mut self) {
        let bounds = self.address_bounds;
        let may_cover = |route: &&IpNet| route.prefix_len() > 0 && bounds.may_overlap(route);
        self.covering_routes = Arc::new(self.routes.keys().filter(may_cover).copied().collect());
    }

    /// Works out again what a route is hit by, after a node inside it came, went or changed.
    pub(crate) fn cover(&mut self, prefix: IpNet, delta: &mut PolicyDelta) {
        let Some(route) = self.routes.get(&prefix).cloned() else { return };
        let (atoms, covered) = self.hits_of_route(prefix);
        delta.routers.extend(route.advertisers.iter().map(|router| router.0));
        route.advertisers.iter().for_each(|router| self.name_moved(*router, delta));
        if route.atoms == atoms && route.covered == covered {
            return;
        }
        self.routes.insert_mut(prefix, Arc::new(Route { atoms, covered, ..Route::clone(&route) }));
        for router in &route.advertisers {
            self.replace(*router, delta);
        }
    }

    /// What addresses inside a prefix are hit by, and the nodes that have such addresses.
    fn hits_of_route(&self, prefix: IpNet) -> (Atoms, Arc<[NodeId]>) {
        if prefix.prefix_len() == 0 {
            return (Arc::new([]), Arc::new([]));
        }
        let mut atoms = Vec::new();
        self.program.literals.add_overlapping(prefix, &mut atoms);
        let mut covered = Vec::new();
        if self.address_bounds.may_overlap(&prefix) {
            let is_inside =
                |node: &&NodeFacts| node.addresses().any(|address| prefix.contains(&address));
            covered.extend(self.nodes().filter(is_inside).map(|node| node.id));
        }
        for class in covered.iter().filter_map(|id| self.class(*id)) {
            let members = class.signature.members.iter().copied();
            atoms.extend(members.filter(|atom| self.program.is_identity(*atom)));
        }
        self.program.complete(&mut atoms);
        (atoms.into(), covered.into())
    }

    /// Atoms of the `via` grants whose traffic a node carries.
    pub(crate) fn vias_routed_by(&self, facts: &NodeFacts, members: &[Atom]) -> Vec<Atom> {
        let carries = |via: &&Via| {
            via.tags.iter().any(|tag| members.contains(tag))
                && facts.active_routes.iter().any(|route| self.is_for(via, *route))
        };
        self.program.vias.iter().filter(carries).map(|via| via.routers).collect()
    }

    /// Whether a `via` grant is about a route.
    fn is_for(&self, via: &Via, prefix: IpNet) -> bool {
        let route = self.routes.get(&prefix);
        via.destinations.iter().any(|atom| match self.program.kind(*atom) {
            Kind::Internet => prefix.prefix_len() == 0,
            _ if prefix.prefix_len() == 0 => false,
            Kind::Identity | Kind::Literal(_) => {
                route.is_some_and(|route| route.atoms.binary_search(atom).is_ok())
            }
            Kind::SelfNodes | Kind::Everybody => false,
        })
    }

    /// The nodes that carry routes.
    pub fn routers(&self) -> RoaringBitmap {
        self.routes.values().flat_map(|route| &route.advertisers).map(|router| router.0).collect()
    }

    /// The subnet routes of which a node is the primary, sorted.
    pub fn primary_routes(&self, node: NodeId) -> Vec<IpNet> {
        let is_primary = |prefix: &IpNet| {
            self.routes.get(prefix).is_some_and(|route| route.primary == Some(node))
        };
        self.node(node).into_iter().flat_map(NodeFacts::subnet_routes).filter(is_primary).collect()
    }

    /// Routes of a peer that a viewer may use, exit routes included; sorted.
    pub fn routes_shown(&self, viewer: NodeId, router: NodeId) -> Vec<IpNet> {
        let Some(carried) = self.node(router).map(|node| &node.active_routes) else {
            return Vec::new();
        };
        let Some(viewer_class) = self.class(viewer) else { return Vec::new() };
        let is_shown = |prefix: &&IpNet| self.is_shown(viewer_class, router, **prefix);
        carried.iter().filter(is_shown).copied().collect()
    }

    fn is_shown(&self, viewer: &Class, router: NodeId, prefix: IpNet) -> bool {
        let Some(route) = self.routes.get(&prefix) else { return false };
        let is_exit = prefix.prefix_len() == 0;
        let steered = self.steer(viewer, router, prefix, route);
        let may_use = if is_exit {
            self.program.does_reach_internet(&viewer.signature.hits)
        } else {
            route.primary == Some(router) && self.may_use(viewer, prefix, route)
        };
        match steered {
            Steered::Free => may_use,
            Steered::Included => true,
            Steered::Excluded => false,
        }
    }

    /// Whether a viewer may use a subnet route through its primary.
    fn may_use(&self, viewer: &Class, prefix: IpNet, route: &Route) -> bool {
        let (program, hits) = (&*self.program, &viewer.signature.hits);
        let is_exit_node = hits.binary_search(&program.exit).is_ok();
        program.does_reach(hits, &route.atoms)
            || program.does_reach(&route.atoms, hits)
            || is_exit_node && program.does_reach_internet(&route.atoms)
            || viewer.signature.routes.contains(&prefix)
    }

    /// What the `via` grants that a viewer is a source of say about a route of a router.
    fn steer(&self, viewer: &Class, router: NodeId, prefix: IpNet, route: &Route) -> Steered {
        let program = &*self.program;
        let hits = &viewer.signature.hits;
        let concerns = |via: &&Via| {
            (via.from_everybody || via.sources.iter().any(|atom| hits.binary_search(atom).is_ok()))
                && self.is_for(via, prefix)
        };
        let mut steered = Steered::Free;
        for via in program.vias.iter().filter(concerns) {
            if self.is_carrier(via, router, prefix, route) {
                steered = Steered::Included;
                break;
            }
            steered = Steered::Excluded;
        }
        let has_other_way = match steered {
            Steered::Free => false,
            Steered::Included | Steered::Excluded if prefix.prefix_len() == 0 => {
                program.does_reach_internet_by_name(hits)
            }
            Steered::Included | Steered::Excluded => program.does_reach_by_name(hits, &route.atoms),
        };
        // Where another rule leads there too, a `via` grant takes nothing away, and adds nothing but the primary.
        if has_other_way && !(steered == Steered::Included && route.primary == Some(router)) {
            return Steered::Free;
        }
        steered
    }

    /// Whether a router carries a route for a `via` grant: of those with its tags the first registered that is online.
    /// Exit routes are carried by all.
    fn is_carrier(&self, via: &Via, router: NodeId, prefix: IpNet, route: &Route) -> bool {
        let is_candidate = |id: &NodeId| {
            let is_online = self.node(*id).is_some_and(|node| node.online);
            let has_tag = |class: &Class| {
                via.tags.iter().any(|tag| class.signature.members.binary_search(tag).is_ok())
            };
            is_online && self.class(*id).is_some_and(has_tag)
        };
        if prefix.prefix_len() == 0 {
            return is_candidate(&router);
        }
        route.advertisers.iter().copied().find(is_candidate) == Some(router)
    }
}

/// What `via` grants make of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Steered {
    /// Nothing.
    Free,
    /// The router carries it for the viewer.
    Included,
    /// Another router carries it.
    Excluded,
}
