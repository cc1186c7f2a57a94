//! What selectors stand for when somebody asks: tests and explanations name users, tags and addresses that no rule may
//! name, and want to know addresses and rules as they are written.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_model::NodeId;
use roaring::RoaringBitmap;

use crate::compiled::CompiledPolicy;
use crate::facts::{NodeFacts, NodeOwner};
use crate::parse;
use crate::policy::{Grant, IpProtocolPorts, Policy, PortRange, Ports, Selector, SelectorId};
use crate::posture;
use crate::program::{INTERNET, Kind, WILDCARD};
use crate::ranges::IpRanges;
use crate::rules::{WrittenRule, written_rules};

/// The selector that a text names in a policy.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the text: groups, tags, hosts and sets must be defined.
pub(crate) fn parse_selector(policy: &Policy, text: &str) -> Result<Selector, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("is missing".to_owned());
    }
    let selector = parse::parse_selector(text)
        .map_err(|refusal| format!("is not understood: {}", refusal.message))?;
    let is_defined = match &selector {
        Selector::Group(name) => policy.groups.contains_key(name),
        Selector::Tag(name) => policy.tag_owners.contains_key(name),
        Selector::Host(name) => policy.hosts.contains_key(name),
        Selector::IpSet(name) => policy.ipsets.contains_key(name),
        Selector::Any
        | Selector::User(_)
        | Selector::UserDomain(_)
        | Selector::Prefix(_)
        | Selector::Member
        | Selector::Tagged
        | Selector::SelfNodes
        | Selector::Internet
        | Selector::DangerAll
        | Selector::Admin
        | Selector::Owner => true,
    };
    if is_defined { Ok(selector) } else { Err("is not defined in the policy".to_owned()) }
}

/// A tailnet that can be asked about selectors beside those of its policy.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) compiled: &'a CompiledPolicy,
    /// The same tailnet under a policy that has all selectors, and no rules, if there are further ones.
    extended: Option<CompiledPolicy>,
    ids: HashMap<Selector, SelectorId>,
    default: Grant,
    /// Active subnet routes, which count among the addresses of `*` as a source.
    routes: IpRanges,
}

impl<'a> Asked<'a> {
    /// Prepares for questions about these selectors, and those of the policy.
    pub(crate) fn new(
        compiled: &'a CompiledPolicy,
        selectors: impl IntoIterator<Item = Selector>,
    ) -> Self {
        let policy = compiled.policy();
        let mut all = policy.selectors.clone();
        let mut ids: HashMap<Selector, SelectorId> =
            all.iter().cloned().zip((0..).map(SelectorId)).collect();
        for selector in selectors.into_iter().chain([Selector::Any]) {
            if !ids.contains_key(&selector) {
                let id = u32::try_from(all.len()).expect("invariant: texts are bounded");
                ids.insert(selector.clone(), SelectorId(id));
                all.push(selector);
            }
        }
        let any = ids[&Selector::Any];
        let is_extended = all.len() > policy.selectors.len();
        let extended = is_extended.then(|| {
            compiled.recompiled(Arc::new(Policy {
                selectors: all,
                groups: policy.groups.clone(),
                hosts: policy.hosts.clone(),
                ipsets: policy.ipsets.clone(),
                acls: Some(Vec::new()),
                ..Policy::default()
            }))
        });
        let routes = compiled.nodes().flat_map(NodeFacts::subnet_routes).collect();
        Self { compiled, extended, ids, default: default_rule(any), routes }
    }

    fn extended(&self) -> &CompiledPolicy {
        self.extended.as_ref().unwrap_or(self.compiled)
    }

    /// The id of a selector that was prepared for.
    pub(crate) fn id(&self, selector: &Selector) -> SelectorId {
        self.ids[selector]
    }

    pub(crate) fn selector(&self, id: SelectorId) -> &Selector {
        self.extended().policy().selector(id)
    }

    pub(crate) fn kind(&self, id: SelectorId) -> &Kind {
        self.extended().program.kind(id.0)
    }

    /// The rules of the policy in the order in which they count.
    pub(crate) fn rules(&self) -> Vec<WrittenRule<'_>> {
        written_rules(self.compiled.policy(), &self.default)
    }

    /// The nodes that a selector selects.
    pub(crate) fn nodes(&self, id: SelectorId) -> RoaringBitmap {
        self.extended().nodes_selected(id)
    }

    /// The addresses that a selector stands for as a source.
    pub(crate) fn source_addresses(&self, id: SelectorId) -> IpRanges {
        let mut addresses = self.addresses(id);
        if *self.selector(id) == Selector::Any {
            addresses = WILDCARD.clone();
            addresses.extend(&self.routes);
        }
        addresses
    }

    /// The addresses that a selector stands for as a destination.
    pub(crate) fn addresses(&self, id: SelectorId) -> IpRanges {
        match self.kind(id) {
            Kind::Everybody => IpRanges::all(),
            Kind::Internet => INTERNET.clone(),
            Kind::SelfNodes => IpRanges::default(),
            Kind::Literal(ranges) => ranges.clone(),
            Kind::Identity => self.addresses_of(&self.nodes(id)),
        }
    }

    pub(crate) fn addresses_of(&self, nodes: &RoaringBitmap) -> IpRanges {
        let nodes = nodes.iter().filter_map(|id| self.compiled.node(NodeId(id)));
        nodes.flat_map(NodeFacts::addresses).collect()
    }

    /// The nodes of some that meet one of a rule's postures; all, if it has none.
    pub(crate) fn compliant(&self, rule: WrittenRule<'_>, nodes: RoaringBitmap) -> RoaringBitmap {
        let postures = &self.compiled.policy().postures;
        if rule.postures().is_empty() {
            return nodes;
        }
        let meets = |name: &Arc<str>, node: &NodeFacts| {
            postures.get(name).is_some_and(|conditions| posture::meets(conditions, &node.device))
        };
        let is_compliant = |id: &u32| {
            let node = self.compiled.node(NodeId(*id));
            node.is_some_and(|node| rule.postures().iter().any(|name| meets(name, node)))
        };
        nodes.iter().filter(is_compliant).collect()
    }
}

/// `* -> *:*`, which holds where a policy says nothing.
fn default_rule(any: SelectorId) -> Grant {
    Grant {
        line: 0,
        src: vec![any],
        dst: vec![any],
        ip: vec![IpProtocolPorts { proto: None, ports: Ports::One(PortRange::ALL) }],
        app: Vec::new(),
        via: Vec::new(),
        src_posture: Vec::new(),
    }
}

impl CompiledPolicy {
    /// Who a node is for people: the login name of its user, or its tags with commas between.
    pub(crate) fn identity(&self, node: &NodeFacts) -> String {
        match &node.owner {
            NodeOwner::User(user) => {
                self.user(*user).map_or_else(|| "nobody".to_owned(), |user| user.login().to_owned())
            }
            NodeOwner::Tags(tags) => tags.join(","),
        }
    }

    /// A node for people: its first address, and who it is.
    pub(crate) fn describe(&self, node: &NodeFacts) -> String {
        match node.addresses().next() {
            Some(address) => format!("{address} ({})", self.identity(node)),
            None => format!("node {} ({})", node.id.0, self.identity(node)),
        }
    }
}
