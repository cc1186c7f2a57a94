//! How nodes come in: register requests, and the logins that admins decide on.
//!
//! The flows are those of PROTOCOL 3.3 in the design: new node, restart, rotation, logout, follow-up.

use std::sync::Arc;

use mesh_model::{
    AuthId, Node, NodeId, Owner, ParseTagError, PreauthKey, PreauthKeyId, RegisterMethod, Tag,
    Timestamp, UserId, label_from_hostname,
};

use mesh_policy::NodeFacts;

use crate::deadlines::later;
use crate::{Context, Draft, Login, LoginState, Outcome, Refusal, Registration};

/// Whose word lets a node in.
struct Grant {
    owner: Owner,
    method: RegisterMethod,
    preauth_key: Option<PreauthKeyId>,
    ephemeral: bool,
}

impl Draft {
    pub(crate) fn register(
        &mut self,
        registration: &Registration,
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        let known = self.state.tailnet.node_by_key(&registration.node_key).cloned();
        if known.as_ref().is_some_and(|node| node.machine_key != registration.machine_key) {
            return Err(Refusal::NodeKeyInUse);
        }
        if registration.expiry.is_some_and(|expiry| expiry <= context.now) {
            return Ok(self.log_out(known.as_deref(), context));
        }
        if let Some(node) = known {
            if !node.is_expired(context.now) {
                return self.restart(&node, registration, context);
            }
            // A key that has expired is renewed by a new one, unless the client has just made it.
            let is_fresh = registration.old_node_key.is_some() || registration.followup.is_some();
            if registration.preauth_key.is_none() && !is_fresh {
                return Ok(Outcome::NodeKeyExpired);
            }
        } else if let Some(node) = self.node_that_moved_on(registration) {
            return Ok(Outcome::Registered(node));
        }
        match registration.preauth_key {
            Some(key) => self.register_with_key(key, registration, context),
            None => self.wait_for_approval(registration, context),
        }
    }

    /// The node that has rotated away from the key of a late request, as happens when a client forces a
    /// login and its two requests overlap. The late one must not cost a single-use key.
    fn node_that_moved_on(&self, registration: &Registration) -> Option<Arc<Node>> {
        self.state
            .tailnet
            .nodes_of_machine(registration.machine_key)
            .find(|node| node.previous_node_key == Some(registration.node_key))
            .cloned()
    }

    fn log_out(&mut self, node: Option<&Node>, context: &Context) -> Outcome {
        if let Some(node) = node {
            if node.ephemeral {
                self.remove_node(node, context);
            } else if !node.is_expired(context.now) {
                self.put_node(
                    Node {
                        expires_at: Some(context.now),
                        session: None,
                        last_seen_at: Some(context.now),
                        ..node.clone()
                    },
                    context,
                );
            }
        }
        Outcome::LoggedOut
    }

    /// A client with a valid key starts again: nothing is asked of it, and no key is used up.
    fn restart(
        &mut self,
        node: &Node,
        registration: &Registration,
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        let mut node = node.clone();
        if let Some(expiry) = registration.expiry {
            if node.expires_at.is_some_and(|expires_at| expiry > expires_at) {
                return Err(Refusal::ExtendingExpiry);
            }
            node.expires_at = Some(expiry);
        }
        let offered = node.hostinfo.routable_ips.clone();
        self.take_in_client(&mut node, registration);
        if node.hostinfo.routable_ips != offered {
            self.approve_by_policy(&mut node);
        }
        Ok(Outcome::Registered(self.put_node(node, context)))
    }

    fn register_with_key(
        &mut self,
        key: PreauthKeyId,
        registration: &Registration,
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        let key = self.state.tailnet.preauth_key(key).cloned().ok_or(Refusal::PreauthKeyRevoked)?;
        check_preauth_key(&key, context.now)?;
        let owner = match (&key.user, key.tags.is_empty()) {
            (_, false) => Owner::Tags(key.tags.clone()),
            (Some(user), true) => Owner::User(*user),
            (None, true) => return Err(Refusal::NoOwner),
        };
        let grant = Grant {
            owner,
            method: RegisterMethod::AuthKey,
            preauth_key: Some(key.id),
            ephemeral: key.ephemeral || registration.ephemeral,
        };
        let Some(node) = self.log_in(registration, grant, context)? else {
            return Ok(Outcome::NodeKeyExpired);
        };
        if !key.reusable {
            self.burn_preauth_key(&key, node.id, context.now);
        }
        Ok(Outcome::Registered(node))
    }

    fn wait_for_approval(
        &mut self,
        registration: &Registration,
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        let logins = &self.state.logins;
        if let Some((id, login)) = logins.find(registration.machine_key, registration.node_key) {
            match login.state {
                LoginState::Waiting => return Ok(Outcome::NeedsLogin(id.clone())),
                LoginState::Rejected if registration.followup.as_ref() == Some(id) => {
                    return Err(Refusal::LoginRejected);
                }
                LoginState::Rejected | LoginState::Approved => {}
            }
        }
        let limits = self.state.settings.logins;
        let from_subnet =
            registration.subnet.map_or(0, |subnet| self.state.logins.count_in(subnet));
        if from_subnet >= limits.per_subnet_max {
            return Err(Refusal::TooManyLogins);
        }
        self.state.logins.make_room(limits.pending_max);
        let id = registration.fresh_auth_id.clone();
        let login = Login {
            registration: Registration { followup: None, ..registration.clone() },
            state: LoginState::Waiting,
            expires_at: later(context.now, limits.lifetime),
        };
        self.put_login(id.clone(), login);
        Ok(Outcome::NeedsLogin(id))
    }

    pub(crate) fn approve_login(
        &mut self,
        auth_id: &AuthId,
        user: UserId,
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        let login = self.waiting_login(auth_id)?;
        self.state.tailnet.user(user).ok_or(Refusal::UserNotFound)?;
        let grant = Grant {
            owner: Owner::User(user),
            method: RegisterMethod::Cli,
            preauth_key: None,
            ephemeral: login.registration.ephemeral,
        };
        let node =
            self.log_in(&login.registration, grant, context)?.ok_or(Refusal::NodeKeyInUse)?;
        self.decide_login(auth_id, &login, LoginState::Approved);
        Ok(Outcome::Node(node))
    }

    pub(crate) fn reject_login(&mut self, auth_id: &AuthId) -> Result<Outcome, Refusal> {
        let login = self.waiting_login(auth_id)?;
        self.decide_login(auth_id, &login, LoginState::Rejected);
        Ok(Outcome::Done)
    }

    fn waiting_login(&self, auth_id: &AuthId) -> Result<Arc<Login>, Refusal> {
        let login =
            self.state.logins.get(auth_id).filter(|login| login.state == LoginState::Waiting);
        login.cloned().ok_or(Refusal::LoginNotFound)
    }

    fn decide_login(&mut self, auth_id: &AuthId, login: &Login, state: LoginState) {
        self.put_login(auth_id.clone(), Login { state, ..login.clone() });
    }

    fn put_login(&mut self, id: AuthId, login: Login) {
        self.state.logins.put(id, login);
        self.changes.logins = true;
    }

    /// Lets a node in, as a new one or in place of one that the machine already has. `None` if the machine
    /// has to make a new node key first.
    fn log_in(
        &mut self,
        registration: &Registration,
        grant: Grant,
        context: &Context,
    ) -> Result<Option<Arc<Node>>, Refusal> {
        let owner = self.owner_with_requested_tags(grant.owner, registration)?;
        let old = self.node_to_take_over(registration, &owner)?;
        let holder = self.state.tailnet.node_by_key(&registration.node_key);
        if holder.is_some_and(|holder| old.as_ref().is_none_or(|old| old.id != holder.id)) {
            return Ok(None);
        }
        let expires_at = self.expiry_of_login(old.as_deref(), &owner, registration.expiry, context);
        let mut node = match old {
            Some(old) => Node::clone(&old),
            None => self.new_node(registration, &owner, context)?,
        };
        if node.node_key != registration.node_key {
            node.previous_node_key = Some(node.node_key);
            node.node_key = registration.node_key;
        }
        node.owner = owner;
        node.expires_at = expires_at;
        node.register_method = grant.method;
        node.preauth_key = grant.preauth_key;
        node.ephemeral = grant.ephemeral;
        self.take_in_client(&mut node, registration);
        self.approve_by_policy(&mut node);
        self.remove_tombstone(registration.machine_key, registration.node_key);
        Ok(Some(self.put_node(node, context)))
    }

    fn owner_with_requested_tags(
        &self,
        owner: Owner,
        registration: &Registration,
    ) -> Result<Owner, Refusal> {
        let requested = &registration.hostinfo.request_tags;
        let Owner::User(user) = owner else { return Ok(owner) };
        if requested.is_empty() {
            return Ok(owner);
        }
        let mut nodes = self.state.tailnet.nodes_of_machine(registration.machine_key);
        let current = nodes.find(|node| is_current(node, registration));
        let facts = current.map(|node| NodeFacts::from(&**node));
        let permit = |text: &String| -> Result<Tag, (String, String)> {
            let refused = |why: String| (text.clone(), why);
            let tag = text.parse().map_err(|error: ParseTagError| refused(error.to_string()))?;
            let permitted = self.state.policy.permits_tag(user, facts.as_ref(), text);
            permitted.map(|()| tag).map_err(|refusal| refused(refusal.to_string()))
        };
        let (mut tags, mut refused, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
        for text in requested {
            match permit(text) {
                Ok(tag) => tags.push(tag),
                Err((tag, why)) => {
                    refused.push(tag);
                    reasons.push(why);
                }
            }
        }
        if refused.is_empty() {
            return Ok(Owner::Tags(sorted(tags)));
        }
        let (tags, reasons) = (refused.join(", "), reasons.join("; "));
        Err(Refusal::TagsNotPermitted { tags, reasons })
    }

    /// The node of this machine that a login continues, so that it keeps its id, name and addresses.
    fn node_to_take_over(
        &self,
        registration: &Registration,
        owner: &Owner,
    ) -> Result<Option<Arc<Node>>, Refusal> {
        let nodes: Vec<_> =
            self.state.tailnet.nodes_of_machine(registration.machine_key).cloned().collect();
        let is_current = |node: &&Arc<Node>| is_current(node, registration);
        let pick = |is_candidate: &dyn Fn(&Node) -> bool| {
            let mut candidates = nodes.iter().filter(|node| is_candidate(node));
            candidates.clone().find(is_current).or_else(|| candidates.next()).cloned()
        };
        let is_tagged = |node: &Node| matches!(node.owner, Owner::Tags(_));
        match owner {
            Owner::User(_) => {
                // A tagged node becomes a person's only by a login of its own.
                let untagged =
                    || nodes.iter().filter(|node| is_tagged(node)).find(is_current).cloned();
                Ok(pick(&|node| node.owner == *owner).or_else(untagged))
            }
            Owner::Tags(_) => {
                if let Some(tagged) = pick(&is_tagged) {
                    return Ok(Some(tagged));
                }
                match nodes.as_slice() {
                    [] => Ok(None),
                    [only] => Ok(Some(only.clone())),
                    several => {
                        let current = several.iter().find(is_current).cloned();
                        current.map(Some).ok_or(Refusal::AmbiguousOwnership)
                    }
                }
            }
        }
    }

    /// A person's node lives as long as the operator or the client says, whichever is shorter; tagged nodes
    /// live on unless an admin said otherwise.
    fn expiry_of_login(
        &self,
        old: Option<&Node>,
        owner: &Owner,
        requested: Option<Timestamp>,
        context: &Context,
    ) -> Option<Timestamp> {
        match owner {
            Owner::User(_) => {
                let default =
                    self.state.settings.node_expiry.map(|expiry| later(context.now, expiry));
                default.into_iter().chain(requested).min()
            }
            Owner::Tags(_) => {
                let stays_tagged = old.filter(|old| !old.owner.tags().is_empty());
                stays_tagged
                    .and_then(|old| old.expires_at)
                    .filter(|expires_at| *expires_at > context.now)
            }
        }
    }

    fn new_node(
        &mut self,
        registration: &Registration,
        owner: &Owner,
        context: &Context,
    ) -> Result<Node, Refusal> {
        let given_name =
            self.free_label(&label_from_hostname(&registration.hostinfo.hostname), None);
        let state = &mut self.state;
        let id = state.counters.node;
        let next_id = id.checked_add(1).ok_or(Refusal::NodeIdsExhausted)?;
        // Kept only if both families have an address.
        let mut addresses = state.addresses.clone();
        let pools = state.policy.ip_pool(&owner.into());
        let (ipv4, ipv6) = addresses.allocate(&state.tailnet, &state.settings, pools, context)?;
        state.counters.node = next_id;
        state.addresses = addresses;
        let remembered = state
            .tailnet
            .tombstones_of_machine(registration.machine_key)
            .max_by_key(|tombstone| tombstone.deleted_at);
        Ok(Node {
            id: NodeId(id),
            machine_key: registration.machine_key,
            node_key: registration.node_key,
            previous_node_key: None,
            disco_key: mesh_keys::DiscoPublic::default(),
            network_lock_key: registration.network_lock_key,
            hostinfo: registration.hostinfo.clone(),
            given_name,
            name_is_chosen: false,
            ipv4,
            ipv6,
            owner: Owner::Tags(Vec::new()),
            register_method: RegisterMethod::AuthKey,
            preauth_key: None,
            ephemeral: false,
            capability_version: registration.capability_version,
            endpoints: Vec::new(),
            home_derp: remembered.and_then(|tombstone| tombstone.home_derp),
            approved_routes: Vec::new(),
            created_at: context.now,
            expires_at: None,
            last_seen_at: None,
            session: None,
        })
    }

    /// Takes what a register request says about the client.
    fn take_in_client(&mut self, node: &mut Node, registration: &Registration) {
        node.network_lock_key = registration.network_lock_key;
        node.capability_version = registration.capability_version;
        self.take_in_hostinfo(node, &registration.hostinfo);
    }
}

/// Whether a request comes from the client of this node of its machine.
fn is_current(node: &Node, registration: &Registration) -> bool {
    node.node_key == registration.node_key || Some(node.node_key) == registration.old_node_key
}

/// Whether a preauth key registers anything at `now`.
fn check_preauth_key(key: &PreauthKey, now: Timestamp) -> Result<(), Refusal> {
    if key.revoked_at.is_some() {
        return Err(Refusal::PreauthKeyRevoked);
    }
    if let Some(expires_at) = key.expires_at.filter(|expires_at| *expires_at <= now) {
        return Err(Refusal::PreauthKeyExpired(expires_at));
    }
    if !key.reusable && key.used_at.is_some() {
        return Err(Refusal::PreauthKeyUsed);
    }
    Ok(())
}

/// Tags in their one order, each once.
pub(crate) fn sorted(mut tags: Vec<Tag>) -> Vec<Tag> {
    tags.sort();
    tags.dedup();
    tags
}
