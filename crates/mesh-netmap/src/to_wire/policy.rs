//! What policy says, as clients read it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mesh_model::Node;
use mesh_policy::{CapGrant, Capabilities, CompiledPolicy, FilterRule, NetPortRange, SshAccess};
use mesh_state::Snapshot;
use mesh_wire as wire;

/// Packet filters by name; `None` deletes one.
pub type PacketFilters = BTreeMap<String, Option<Vec<wire::FilterRule>>>;

/// The name under which `None` deletes all packet filters, before the others are set.
const ALL_FILTERS: &str = "*";

/// Who decides on a login that is to be checked first. The destination asks its control server for this path, through
/// the Noise channel; the host is not looked at. The variables are filled in by the client.
///
/// Source: tailscale `ssh/tailssh/tailssh.go`, `expandDelegateURLLocked`.
const SSH_CHECK_URL: &str =
    "https://unused/machine/ssh/action/$SRC_NODE_ID/to/$DST_NODE_ID?local_user=$LOCAL_USER";

/// Where recorders of SSH sessions listen.
///
/// Source: tailscale `sessionrecording/connect.go`, and the recorder's own manual.
const RECORDER_PORT: u16 = 80;

/// What a user reads whose session cannot be recorded.
const NOT_RECORDED: &str = "this session must be recorded, and no recorder can be reached";

/// All packet filters of a node, in place of any that its client has. Nobody reaches a node whose key has expired.
pub(crate) fn whole_filter(snapshot: &Snapshot, node: &Node) -> PacketFilters {
    let chunks = if node.is_expired(snapshot.at) {
        BTreeMap::new()
    } else {
        snapshot.policy.filter_chunks(node.id)
    };
    let named = chunks.into_iter().map(|(name, rules)| (name, Some(filter_rules(&rules))));
    no_filter().into_iter().chain(named).collect()
}

/// Lets nobody in.
pub(crate) fn no_filter() -> PacketFilters {
    [(ALL_FILTERS.to_owned(), None)].into()
}

/// Those packet filters of a node that are different under another policy or among other nodes.
pub(crate) fn filter_delta(
    from: &CompiledPolicy,
    to: &CompiledPolicy,
    node: &Node,
) -> PacketFilters {
    let named = from.filter_delta(to, node.id).into_iter();
    named.map(|(name, rules)| (name, rules.as_deref().map(filter_rules))).collect()
}

fn filter_rules(rules: &[FilterRule]) -> Vec<wire::FilterRule> {
    rules.iter().map(filter_rule).collect()
}

fn filter_rule(rule: &FilterRule) -> wire::FilterRule {
    wire::FilterRule {
        src_ips: rule.src_ips.clone(),
        dst_ports: rule.dst_ports.iter().map(net_port_range).collect(),
        ip_proto: rule.ip_proto.map(i32::from).into_iter().collect(),
        cap_grant: rule.cap_grant.iter().map(cap_grant).collect(),
    }
}

fn net_port_range(range: &NetPortRange) -> wire::NetPortRange {
    wire::NetPortRange {
        ip: range.ip.clone(),
        ports: wire::PortRange { first: range.ports.first, last: range.ports.last },
    }
}

fn cap_grant(grant: &CapGrant) -> wire::CapGrant {
    wire::CapGrant {
        dsts: grant.dsts.clone(),
        caps: Vec::new(),
        cap_map: capabilities(&grant.cap_map),
    }
}

/// Capabilities of nodes or applications.
pub(super) fn capabilities(capabilities: &Capabilities) -> wire::CapMap {
    let values = |values: &Vec<mesh_policy::RawJson>| values.iter().map(raw_json).collect();
    capabilities
        .iter()
        .map(|(name, known)| (String::from(&**name), known.as_ref().map(values)))
        .collect()
}

fn raw_json(value: &mesh_policy::RawJson) -> wire::RawJson {
    wire::RawJson::parse(&value.0).expect("invariant: the policy's parser has read it as JSON")
}

/// Who may log in to a node over SSH. While the policy says nothing about SSH at all, nothing is said of it; nobody
/// logs in to a node whose key has expired.
pub(crate) fn ssh_policy(snapshot: &Snapshot, node: &Node) -> Option<wire::SshPolicy> {
    let policy = &snapshot.policy;
    let is_silent = policy.policy().ssh.is_empty();
    let access = || {
        if node.is_expired(snapshot.at) { Vec::new() } else { policy.ssh_access(node.id) }
    };
    (!is_silent).then(|| ssh_rules(&access()))
}

/// Who may log in to a node over SSH, if that is different under another policy or among other nodes.
pub(crate) fn ssh_delta(
    from: &CompiledPolicy,
    to: &CompiledPolicy,
    node: &Node,
) -> Option<wire::SshPolicy> {
    let access = to.ssh_access(node.id);
    (from.ssh_access(node.id) != access).then(|| ssh_rules(&access))
}

fn ssh_rules(access: &[SshAccess]) -> wire::SshPolicy {
    wire::SshPolicy { rules: access.iter().map(ssh_rule).collect() }
}

fn ssh_rule(access: &SshAccess) -> wire::SshRule {
    let principal = |address: &std::net::IpAddr| wire::SshPrincipal {
        node_ip: address.to_string(),
        ..wire::SshPrincipal::default()
    };
    let names = access.ssh_users.iter();
    wire::SshRule {
        principals: access.principals.iter().map(principal).collect(),
        ssh_users: names
            .map(|(asked, local)| (String::from(&**asked), String::from(&**local)))
            .collect(),
        action: Some(ssh_action(access)),
        accept_env: access.accept_env.iter().map(|name| String::from(&**name)).collect(),
        ..wire::SshRule::default()
    }
}

fn ssh_action(access: &SshAccess) -> wire::SshAction {
    let recorders = access.recorders.iter().map(|ip| SocketAddr::new(*ip, RECORDER_PORT)).collect();
    let refusal = || wire::SshRecorderFailureAction {
        reject_session_with_message: NOT_RECORDED.to_owned(),
        terminate_session_with_message: NOT_RECORDED.to_owned(),
        ..wire::SshRecorderFailureAction::default()
    };
    let action = wire::SshAction {
        recorders,
        on_recording_failure: access.enforce_recorder.then(refusal),
        ..wire::SshAction::default()
    };
    if access.check_period.is_some() {
        return wire::SshAction { hold_and_delegate: SSH_CHECK_URL.to_owned(), ..action };
    }
    wire::SshAction {
        accept: true,
        allow_agent_forwarding: true,
        allow_local_port_forwarding: true,
        allow_remote_port_forwarding: true,
        ..action
    }
}
