//! A checked policy: what its text says, with every name looked up and every value in range.
//!
//! The order of everything is the order of the text, for it decides the order of filter rules. Selectors are
//! interned: a policy that names `tag:web` ten thousand times holds it once.
//!
//! Source for each section: the policy syntax reference at <https://tailscale.com/docs/reference/syntax/policy-file>.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::ranges::IpRanges;

/// A selector of a [`Policy`], as an index into [`Policy::selectors`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SelectorId(pub u32);

/// What names nodes or addresses in a rule. Names are as written, with their prefix (`group:`, `tag:`, …).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// `*`.
    Any,
    /// A user by login name, such as `alice@example.com`, or `alice@` for a local one.
    User(Arc<str>),
    /// `user:*@example.com`: every user whose login is in the domain. Holds the domain.
    UserDomain(Arc<str>),
    /// `group:…`, a key of [`Policy::groups`].
    Group(Arc<str>),
    /// `tag:…`, a key of [`Policy::tag_owners`].
    Tag(Arc<str>),
    /// A key of [`Policy::hosts`].
    Host(Arc<str>),
    /// `ipset:…`, a key of [`Policy::ipsets`].
    IpSet(Arc<str>),
    /// An address or a CIDR, host bits as written.
    Prefix(IpNet),
    /// `autogroup:member`: untagged nodes.
    Member,
    /// `autogroup:tagged`: tagged nodes.
    Tagged,
    /// `autogroup:self`: as a destination, the source's own user's untagged nodes.
    SelfNodes,
    /// `autogroup:internet`: as a destination, what exit nodes reach.
    Internet,
    /// `autogroup:danger-all`: as a source, every address there is.
    DangerAll,
    /// `autogroup:admin`: untagged nodes of users with the role admin or owner.
    Admin,
    /// `autogroup:owner`: untagged nodes of users with the role owner.
    Owner,
}

/// As it is written in a policy; addresses in their canonical form.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::User(name)
            | Self::Group(name)
            | Self::Tag(name)
            | Self::Host(name)
            | Self::IpSet(name) => f.write_str(name),
            Self::UserDomain(domain) => write!(f, "user:*@{domain}"),
            Self::Prefix(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => {
                write!(f, "{}", prefix.addr())
            }
            Self::Prefix(prefix) => write!(f, "{prefix}"),
            Self::Member => f.write_str("autogroup:member"),
            Self::Tagged => f.write_str("autogroup:tagged"),
            Self::SelfNodes => f.write_str("autogroup:self"),
            Self::Internet => f.write_str("autogroup:internet"),
            Self::DangerAll => f.write_str("autogroup:danger-all"),
            Self::Admin => f.write_str("autogroup:admin"),
            Self::Owner => f.write_str("autogroup:owner"),
        }
    }
}

/// Ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// Whether a port is among them.
    pub fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// As it is written in a policy.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ALL => f.write_str("*"),
            Self { first, last } if first == last => write!(f, "{first}"),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

/// Ports of one destination, in the order of the text. Most are one range, which takes no room of its own.
#[derive(Clone)]
pub enum Ports {
    /// One range.
    One(PortRange),
    /// A list.
    Many(Arc<[PortRange]>),
}

impl std::ops::Deref for Ports {
    type Target = [PortRange];

    fn deref(&self) -> &[PortRange] {
        match self {
            Self::One(range) => std::slice::from_ref(range),
            Self::Many(ranges) => ranges,
        }
    }
}

/// By what they are, not by how they are kept.
impl PartialEq for Ports {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Ports {}

/// The list of ranges.
impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Capabilities of an `app` object: names in the order of the text, each with its values.
pub type AppCapabilities = Vec<(Arc<str>, Vec<RawJson>)>;

/// One JSON value as compact text: no comments, no white space outside strings, numbers as written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawJson(pub Arc<str>);

/// An entry of `acls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    /// Line of the entry in the text, from 1.
    pub line: u32,
    /// Who may connect.
    pub src: Vec<SelectorId>,
    /// To what.
    pub dst: Vec<AclDestination>,
    /// The IP protocol; none stands for the default set (TCP, UDP and both ICMPs).
    pub proto: Option<u8>,
    /// `srcPosture`: sources must meet one of these, keys of [`Policy::postures`]. Empty: no condition (the default posture,
    /// where there is one, has been filled in).
    pub src_posture: Vec<Arc<str>>,
}

/// A destination of an [`Acl`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclDestination {
    /// The nodes or addresses.
    pub selector: SelectorId,
    /// Ports, in the order of the text.
    pub ports: Ports,
}

/// An entry of `grants`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Line of the entry in the text, from 1.
    pub line: u32,
    /// Who may connect.
    pub src: Vec<SelectorId>,
    /// To what.
    pub dst: Vec<SelectorId>,
    /// `ip`: protocols and ports, in the order of the text.
    pub ip: Vec<IpProtocolPorts>,
    /// `app`: what applications are told.
    pub app: AppCapabilities,
    /// `via`: tags of the routers that carry the traffic.
    pub via: Vec<SelectorId>,
    /// As [`Acl::src_posture`].
    pub src_posture: Vec<Arc<str>>,
}

/// An entry of a grant's `ip`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpProtocolPorts {
    /// As [`Acl::proto`].
    pub proto: Option<u8>,
    /// Ports, in the order of the text.
    pub ports: Ports,
}

/// An entry of `ssh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshRule {
    /// Line of the entry in the text, from 1.
    pub line: u32,
    /// Whether sessions are let in at once or after a check.
    pub action: SshAction,
    /// Who may log in.
    pub src: Vec<SelectorId>,
    /// Where.
    pub dst: Vec<SelectorId>,
    /// As whom, in the order of the text.
    pub users: Vec<SshUser>,
    /// Environment variables the client may set; may hold `*` and `?`.
    pub accept_env: Vec<Arc<str>>,
    /// Nodes that record sessions (`recorder`).
    pub recorder: Vec<SelectorId>,
    /// Whether sessions that cannot be recorded are refused (`enforceRecorder`).
    pub enforce_recorder: bool,
}

/// What an [`SshRule`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SshAction {
    /// `accept`.
    Accept,
    /// `check`: the user has to have proven who they are within this time; zero is every time (`always`).
    Check {
        /// `checkPeriod`; 12 h unless the text says otherwise.
        period: Duration,
    },
}

/// A login name an [`SshRule`] allows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SshUser {
    /// `root`.
    Root,
    /// `autogroup:nonroot`: any name but root.
    NonRoot,
    /// `localpart:*@domain`: the part of the source user's login before the `@`. Holds the domain.
    LocalPart(Arc<str>),
    /// This name.
    Name(Arc<str>),
}

/// An entry of `nodeAttrs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAttributes {
    /// Line of the entry in the text, from 1.
    pub line: u32,
    /// The nodes.
    pub target: Vec<SelectorId>,
    /// Attributes without a value.
    pub attr: Vec<Arc<str>>,
    /// Capabilities with values.
    pub app: AppCapabilities,
    /// Where addresses of these nodes come from when they register.
    pub ip_pool: Vec<IpNet>,
}

/// `autoApprovers`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AutoApprovers {
    /// Whose routes inside a prefix need no admin.
    pub routes: Vec<(IpNet, Vec<SelectorId>)>,
    /// Whose exit routes need no admin.
    pub exit_node: Vec<SelectorId>,
}

impl AutoApprovers {
    /// Whether every route needs an admin.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.exit_node.is_empty()
    }
}

/// An entry of `tests`. Texts are as written: one that names nothing fails its test, it does not spoil the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Line of the entry in the text, from 1.
    pub line: u32,
    /// A selector; empty if missing.
    pub src: Arc<str>,
    /// A protocol; empty if missing.
    pub proto: Arc<str>,
    /// `selector:port` that must be reached.
    pub accept: Vec<Arc<str>>,
    /// `selector:port` that must not be reached.
    pub deny: Vec<Arc<str>>,
}

/// An entry of `sshTests`. Texts are as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTest {
    /// Line of the entry in the text, from 1.
    pub line: u32,
    /// A selector; empty if missing.
    pub src: Arc<str>,
    /// Selectors.
    pub dst: Vec<Arc<str>>,
    /// Login names that must be let in.
    pub accept: Vec<Arc<str>>,
    /// Login names that must not be let in.
    pub deny: Vec<Arc<str>>,
    /// Login names that must be let in after a check.
    pub check: Vec<Arc<str>>,
}

/// A condition of a posture: what a source device must be like. A device that lacks the attribute meets none but
/// [`Comparison::IsNotSet`].
///
/// Source: <https://tailscale.com/docs/features/device-posture>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Such as `node:os`.
    pub attribute: Arc<str>,
    /// What must be true of it.
    pub comparison: Comparison,
}

/// What a [`Condition`] asks of an attribute. Values are as written, without quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// `==`.
    Equal(Arc<str>),
    /// `!=`.
    NotEqual(Arc<str>),
    /// `<`; versions compare part by part.
    Less(Arc<str>),
    /// `<=`.
    LessOrEqual(Arc<str>),
    /// `>`.
    Greater(Arc<str>),
    /// `>=`.
    GreaterOrEqual(Arc<str>),
    /// `IN [...]`.
    In(Vec<Arc<str>>),
    /// `NOT IN [...]`.
    NotIn(Vec<Arc<str>>),
    /// `IS SET`.
    IsSet,
    /// `NOT SET`.
    IsNotSet,
}

/// `OneCGNATRoute`: whether macOS clients install one route for the whole tailnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OneCgnatRoute {
    /// `mac-always`.
    MacAlways,
    /// `mac-never`.
    MacNever,
}

/// A checked policy. The default is the policy that a tailnet without one has: everybody reaches everybody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Every selector that is named anywhere, once each.
    pub selectors: Vec<Selector>,
    /// Groups with their members' login names as written.
    pub groups: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    /// Names for addresses.
    pub hosts: BTreeMap<Arc<str>, IpNet>,
    /// Named sets of addresses, worked out.
    pub ipsets: BTreeMap<Arc<str>, IpRanges>,
    /// Tags with those who may give them to their nodes.
    pub tag_owners: BTreeMap<Arc<str>, Vec<SelectorId>>,
    /// `acls`; absent is not the same as empty.
    pub acls: Option<Vec<Acl>>,
    /// `grants`; absent is not the same as empty.
    pub grants: Option<Vec<Grant>>,
    /// `ssh`.
    pub ssh: Vec<SshRule>,
    /// `nodeAttrs`.
    pub node_attrs: Vec<NodeAttributes>,
    /// `autoApprovers`.
    pub auto_approvers: AutoApprovers,
    /// `postures`: all conditions of a posture must be met.
    pub postures: BTreeMap<Arc<str>, Vec<Condition>>,
    /// `tests`.
    pub tests: Vec<Test>,
    /// `sshTests`.
    pub ssh_tests: Vec<SshTest>,
    /// `randomizeClientPort`.
    pub randomize_client_port: bool,
    /// `disableIPv4`: every node as if it had the attribute `disable-ipv4`.
    pub disable_ipv4: bool,
    /// `OneCGNATRoute`.
    pub one_cgnat_route: Option<OneCgnatRoute>,
}

impl Policy {
    /// The selector of an id.
    pub fn selector(&self, id: SelectorId) -> &Selector {
        &self.selectors[id.0 as usize]
    }

    /// Whether the text grants nothing and denies nothing, so that everybody reaches everybody.
    pub fn allows_all(&self) -> bool {
        self.acls.is_none() && self.grants.is_none()
    }
}
