//! What can be asked of a tailnet's state, and what it answers.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_keys::{DiscoPublic, MachinePublic, NetworkLockPublic, NodePublic};
use mesh_model::{
    ApiKey, ApiKeyId, AuthId, Hostinfo, NameError, Node, NodeId, PolicyVersion, PreauthKey,
    PreauthKeyId, SecretHash, SessionId, Tag, Timestamp, User, UserId,
};
use mesh_policy::Policy;
use thiserror::Error;

/// What a decision depends on beside the state: the time, and randomness drawn beforehand.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The current time, in whole milliseconds.
    pub now: Timestamp,
    /// Random bits, for addresses that are allocated at random.
    pub entropy: u64,
}

/// One change to a tailnet. The first group is durable, the second ([`Command::is_soft`]) may be lost in a
/// crash, for clients send it again.
#[derive(Debug, Clone)]
pub enum Command {
    /// A client registers, rotates its key, logs out, or asks how its login stands.
    Register(Box<Registration>),
    /// An admin lets a waiting login in, as a node of this user.
    ApproveLogin {
        /// The waiting login.
        auth_id: AuthId,
        /// The node's user.
        user: UserId,
    },
    /// An admin turns a waiting login away.
    RejectLogin {
        /// The waiting login.
        auth_id: AuthId,
    },
    /// Sets or clears (`None`) the time from when on a node's key counts no more.
    SetNodeExpiry {
        /// The node.
        node: NodeId,
        /// The new expiry.
        expires_at: Option<Timestamp>,
    },
    /// Gives a node a name that no longer follows its hostname.
    RenameNode {
        /// The node.
        node: NodeId,
        /// The new DNS label.
        name: String,
    },
    /// Makes a node its tags' instead of its user's, or replaces its tags. At least one tag.
    TagNode {
        /// The node.
        node: NodeId,
        /// All of its tags.
        tags: Vec<Tag>,
    },
    /// Replaces the routes that a node may carry.
    ApproveRoutes {
        /// The node.
        node: NodeId,
        /// All approved routes.
        routes: Vec<IpNet>,
    },
    /// Removes a node.
    DeleteNode {
        /// The node.
        node: NodeId,
    },
    /// Puts a policy in force.
    SetPolicy(Box<NewPolicy>),
    /// Makes a user.
    CreateUser(NewUser),
    /// Renames a user.
    RenameUser {
        /// The user.
        user: UserId,
        /// The new name.
        name: String,
    },
    /// Removes a user that owns no nodes, and the preauth keys it owns.
    DeleteUser {
        /// The user.
        user: UserId,
    },
    /// Makes a preauth key.
    CreatePreauthKey(NewPreauthKey),
    /// Takes a preauth key back: it registers nothing more.
    RevokePreauthKey {
        /// The key.
        key: PreauthKeyId,
    },
    /// Removes a preauth key. Nodes that used it stay.
    DeletePreauthKey {
        /// The key.
        key: PreauthKeyId,
    },
    /// Makes an API key.
    CreateApiKey {
        /// Name and hash of the key.
        secret: NewSecret,
        /// From when on it opens nothing.
        expires_at: Option<Timestamp>,
    },
    /// Ends an API key now.
    ExpireApiKey {
        /// The key.
        key: ApiKeyId,
    },
    /// Removes an API key.
    DeleteApiKey {
        /// The key.
        key: ApiKeyId,
    },
    /// A map stream opens for a node and takes over from any older one.
    Connect {
        /// The node.
        node: NodeId,
        /// The node key that the stream was opened with.
        node_key: NodePublic,
        /// The disco key in its request, adopted if none is known.
        disco_key: DiscoPublic,
    },
    /// A map stream has been closed for longer than the grace period.
    Disconnect {
        /// The node.
        node: NodeId,
        /// The stream's session: a newer one keeps the node online.
        session: SessionId,
    },
    /// A client tells of its machine and endpoints.
    UpdateNode(Box<NodeUpdate>),
    /// An API key was used.
    TouchApiKey {
        /// The key.
        key: ApiKeyId,
    },
    /// Does what has fallen due: keys that expire, ephemeral nodes that are gone, logins nobody approved.
    Sweep,
}

impl Command {
    /// Whether the command may be lost in a crash without anybody noticing.
    pub fn is_soft(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::Disconnect { .. }
                | Self::UpdateNode(_)
                | Self::TouchApiKey { .. }
                | Self::Sweep
        )
    }
}

/// A register request, its secrets already verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// The machine key of the channel it came through.
    pub machine_key: MachinePublic,
    /// The key to register.
    pub node_key: NodePublic,
    /// The key it replaces, if the client says so.
    pub old_node_key: Option<NodePublic>,
    /// Tailnet-lock key; zero without one.
    pub network_lock_key: NetworkLockPublic,
    /// The preauth key whose secret the client presented, if any.
    pub preauth_key: Option<PreauthKeyId>,
    /// The expiry the client wants: in the past to log out, sooner than the present one to shorten it.
    pub expiry: Option<Timestamp>,
    /// The login it asks after, as told to it before.
    pub followup: Option<AuthId>,
    /// Where it comes from, as far as waiting logins are counted by it.
    pub subnet: Option<IpNet>,
    /// An unused auth id, in case a login starts.
    pub fresh_auth_id: AuthId,
    /// Whether the node wants to be removed when it goes away.
    pub ephemeral: bool,
    /// What it says about its machine.
    pub hostinfo: Hostinfo,
    /// Capability version of its client.
    pub capability_version: u32,
}

/// What a map request says about a node: all of it, replacing what was known.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeUpdate {
    /// The node.
    pub node: NodeId,
    /// The key that the request was made with; a request of an older key changes nothing.
    pub node_key: NodePublic,
    /// Key in NAT traversal.
    pub disco_key: DiscoPublic,
    /// Its machine; absent if the request did not say.
    pub hostinfo: Option<Hostinfo>,
    /// Where peers may reach it.
    pub endpoints: Vec<SocketAddr>,
    /// Home region; absent if the request did not say.
    pub home_derp: Option<u32>,
    /// Capability version of its client.
    pub capability_version: u32,
}

impl NodeUpdate {
    /// What this and a later update of the same node key say together: the later one's word, where it gives it.
    #[must_use]
    pub fn followed_by(self, later: Self) -> Self {
        Self {
            disco_key: if later.disco_key.is_zero() { self.disco_key } else { later.disco_key },
            hostinfo: later.hostinfo.or(self.hostinfo),
            home_derp: later.home_derp.or(self.home_derp),
            ..later
        }
    }
}

/// A policy that is to be in force, its text already parsed.
#[derive(Debug, Clone)]
pub struct NewPolicy {
    /// The text.
    pub text: String,
    /// What it says.
    pub policy: Arc<Policy>,
    /// Who wrote it, as in [`PolicyVersion::created_by`].
    pub created_by: String,
    /// Digest of the text that it replaces: if that is no longer in force, nothing happens. `None` replaces any.
    pub replaces: Option<String>,
}

/// What a user is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewUser {
    /// Unique name.
    pub name: String,
    /// Name for people to read; may be empty.
    pub display_name: String,
    /// May be empty.
    pub email: String,
    /// Absolute URL; may be empty.
    pub profile_pic_url: String,
}

/// Name and hash of a secret that was just minted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSecret {
    /// The part of the key's text that names it.
    pub public_id: String,
    /// Hash of the secret part.
    pub hash: SecretHash,
}

/// What a preauth key is made of. Without tags a user is required.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPreauthKey {
    /// Name and hash.
    pub secret: NewSecret,
    /// Whose nodes it registers.
    pub user: Option<UserId>,
    /// Tags of the nodes it registers.
    pub tags: Vec<Tag>,
    /// Whether it registers more than one node.
    pub reusable: bool,
    /// Whether its nodes are removed when they go away.
    pub ephemeral: bool,
    /// From when on it registers nothing more.
    pub expires_at: Option<Timestamp>,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The node is registered, or was already.
    Registered(Arc<Node>),
    /// An admin has to approve the login of this id.
    NeedsLogin(AuthId),
    /// The key has expired: the client has to make a new one.
    NodeKeyExpired,
    /// The node is logged out, or gone if it was ephemeral.
    LoggedOut,
    /// The map stream holds the node by this session.
    Connected(SessionId),
    /// A node was made or changed.
    Node(Arc<Node>),
    /// A user was made or changed.
    User(Arc<User>),
    /// A preauth key was made or changed.
    PreauthKey(Arc<PreauthKey>),
    /// An API key was made or changed.
    ApiKey(Arc<ApiKey>),
    /// This version of the policy is in force.
    Policy(Arc<PolicyVersion>),
    /// Nothing to show.
    Done,
}

/// Why a command was refused. Nothing has changed. The text is for the person who asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No such user.
    #[error("user not found: `meshcontrol users list` shows them")]
    UserNotFound,
    /// No such node.
    #[error("node not found: `meshcontrol nodes list` shows them")]
    NodeNotFound,
    /// No such preauth key.
    #[error("preauth key not found: `meshcontrol preauthkeys list` shows them")]
    PreauthKeyNotFound,
    /// No such API key.
    #[error("API key not found: `meshcontrol apikeys list` shows them")]
    ApiKeyNotFound,
    /// No such login, or it has run out.
    #[error("no login waits under this auth id: it may have run out, so start again on the client")]
    LoginNotFound,
    /// Too many logins wait from one subnet.
    #[error(
        "too many logins wait for approval from this network: approve or reject some, or try again later"
    )]
    TooManyLogins,
    /// The login was turned away.
    #[error("the login was rejected by an admin")]
    LoginRejected,
    /// The name is not allowed.
    #[error("invalid name: {0}")]
    InvalidName(#[from] NameError),
    /// Somebody else has the name.
    #[error("the name `{0}` is taken")]
    NameTaken(String),
    /// A user that still owns nodes cannot go.
    #[error("the user still owns {0} nodes: delete them first")]
    UserHasNodes(usize),
    /// A node has to belong to somebody.
    #[error("a node needs at least one tag here: a client drops its tags by logging in again")]
    NoTags,
    /// A preauth key has to belong to somebody.
    #[error("a preauth key needs a user or at least one tag")]
    NoOwner,
    /// The preauth key was used up.
    #[error("auth key already used: it is good for one node, so create another")]
    PreauthKeyUsed,
    /// The preauth key has expired.
    #[error("auth key expired at {0}: create another")]
    PreauthKeyExpired(Timestamp),
    /// The preauth key was revoked.
    #[error("auth key revoked: create another")]
    PreauthKeyRevoked,
    /// The node key belongs to another machine.
    #[error("node key is in use by another machine")]
    NodeKeyInUse,
    /// A tagged key found several nodes of the machine that it could convert.
    #[error(
        "this machine has several nodes of different users: delete all but the one to be tagged"
    )]
    AmbiguousOwnership,
    /// A client may not lengthen its own key's life.
    #[error("extending key is not allowed")]
    ExtendingExpiry,
    /// The client asked for tags that it may not have.
    #[error("requested tags [{tags}] are invalid or not permitted: {reasons}")]
    TagsNotPermitted {
        /// The tags that it may not have.
        tags: String,
        /// Why not, one by one.
        reasons: String,
    },
    /// The policy defines tags, but not this one.
    #[error("{0} is not defined in tagOwners of the policy: define it there first")]
    TagUndefined(Tag),
    /// The policy was changed meanwhile.
    #[error("the policy has changed since it was read: read it again")]
    PolicyReplaced,
    /// The policy does not do what its own tests say.
    #[error("{0}")]
    PolicyTestsFailed(String),
    /// All addresses are taken.
    #[error("no address is free in {0}: configure a larger prefix")]
    AddressesExhausted(IpNet),
    /// All addresses of the pool that the policy names for the node are taken.
    #[error("no address is free in the ipPool that the policy has for this node: make it larger")]
    PoolExhausted,
    /// Ids are 32 bits.
    #[error("all node ids are used up")]
    NodeIdsExhausted,
    /// The database refused the change, which another writer has overtaken.
    #[error("another change came first: try again")]
    Conflict,
}
