//! The policy: putting one in force, what it approves by itself, and the versions that are kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::{Node, NodeId, PolicyVersion, PolicyVersionId};
use mesh_policy::{CompiledPolicy, NodeFacts};

use crate::{Context, Draft, NewPolicy, Outcome, Refusal};

/// How many versions of the policy are kept; the oldest makes room.
pub const POLICY_VERSIONS_MAX: usize = 100;

/// How many bytes the texts of all versions may have together, for they are in memory too; the oldest make room.
pub const POLICY_HISTORY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Names a text of the policy: BLAKE3 in 64 lower-case hex digits.
pub fn policy_digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

impl Draft {
    /// Puts a policy in force, and records its text unless that is the newest version already.
    ///
    /// Its tests are run here too, for the tailnet may be another one than when the caller ran them. A policy that is
    /// in force already is not refused for them: nothing would come of that.
    pub(crate) fn set_policy(
        &mut self,
        new: &NewPolicy,
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        let digest = policy_digest(&new.text);
        let current = self.state.tailnet.policy_version().cloned();
        let replaced =
            current.as_ref().map_or_else(|| policy_digest(""), |current| current.digest.clone());
        if new.replaces.as_ref().is_some_and(|wanted| *wanted != replaced) {
            return Err(Refusal::PolicyReplaced);
        }
        if new.policy != *self.state.policy.policy() {
            let (compiled, delta) = self.state.policy.edited(new.policy.clone());
            check_tests(&compiled)?;
            self.note_policy(&delta);
            self.state.policy = compiled;
        }
        self.approve_for_all(context);
        let version = match current {
            Some(current) if current.digest == digest => current,
            current => self.add_policy_version(new, digest, current.as_deref(), context),
        };
        Ok(Outcome::Policy(version))
    }

    fn add_policy_version(
        &mut self,
        new: &NewPolicy,
        digest: String,
        current: Option<&PolicyVersion>,
        context: &Context,
    ) -> Arc<PolicyVersion> {
        let version = self.put_policy_version(PolicyVersion {
            id: PolicyVersionId(current.map_or(1, |current| current.id.0 + 1)),
            text: new.text.clone(),
            digest,
            created_by: new.created_by.clone(),
            created_at: context.now,
        });
        self.forget_old_policy_versions();
        version
    }

    fn forget_old_policy_versions(&mut self) {
        let (mut count, mut bytes) = (0, 0);
        let mut is_too_much = |version: &Arc<PolicyVersion>| {
            count += 1;
            bytes += version.text.len();
            let is_newest = count == 1;
            !is_newest && (count > POLICY_VERSIONS_MAX || bytes > POLICY_HISTORY_BYTES_MAX)
        };
        let versions = self.state.tailnet.policy_versions().rev();
        let old: Vec<PolicyVersionId> =
            versions.filter(|version| is_too_much(version)).map(|version| version.id).collect();
        for id in old {
            self.remove_policy_version(id);
        }
    }

    /// Approves what the policy approves by itself, for every node that offers routes.
    fn approve_for_all(&mut self, context: &Context) {
        if self.state.policy.policy().auto_approvers.is_empty() {
            return;
        }
        let offers = |node: &&Arc<Node>| !node.hostinfo.routable_ips.is_empty();
        let routers: Vec<NodeId> =
            self.state.tailnet.nodes().filter(offers).map(|node| node.id).collect();
        for id in routers {
            let Some(old) = self.state.tailnet.node(id) else { continue };
            let mut node = Node::clone(old);
            self.approve_by_policy(&mut node);
            if node.approved_routes != old.approved_routes {
                self.put_node(node, context);
            }
        }
    }

    /// Approves those routes of a node that need no admin. What was approved before stays, also when the policy no
    /// longer says so: a person may rely on it, and withdraws it.
    pub(crate) fn approve_by_policy(&self, node: &mut Node) {
        let offered = &node.hostinfo.routable_ips;
        let approved = self.state.policy.auto_approved(&NodeFacts::from(&*node), offered);
        if !approved.iter().all(|route| node.approved_routes.contains(route)) {
            let all = node.approved_routes.iter().copied().chain(approved);
            node.approved_routes = approvable(all);
        }
    }
}

/// Routes as they are approved: sorted, each once. An exit node carries both families, so approving one default
/// route approves the other.
pub(crate) fn approvable(routes: impl IntoIterator<Item = IpNet>) -> Vec<IpNet> {
    let mut routes: BTreeSet<IpNet> = routes.into_iter().map(|route| route.trunc()).collect();
    if routes.iter().any(|route| route.prefix_len() == 0) {
        let both = ["0.0.0.0/0", "::/0"];
        routes
            .extend(both.map(|route| route.parse::<IpNet>().expect("invariant: a literal prefix")));
    }
    routes.into_iter().collect()
}

fn check_tests(policy: &CompiledPolicy) -> Result<(), Refusal> {
    let report = policy.run_tests();
    if report.passed() { Ok(()) } else { Err(Refusal::PolicyTestsFailed(report.to_string())) }
}
