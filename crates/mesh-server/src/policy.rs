//! From a text that somebody wrote to a policy that may be put in force.

use std::sync::Arc;

use mesh_policy::{CompiledPolicy, Policy, Problems, TestReport};
use mesh_state::Snapshot;
use thiserror::Error;

/// Why a text cannot be put in force. Each text tells all that is wrong.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// An empty text is an accident, and would let everybody reach everybody.
    #[error("the policy is empty: to let every node reach every other, write {{}}")]
    Empty,
    /// The text makes no sense.
    #[error(transparent)]
    Invalid(#[from] Problems),
    /// The policy does not do what its own tests say.
    #[error("{0}")]
    TestsFailed(TestReport),
    /// The work was ended: the server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// A policy that passed its own tests.
#[derive(Debug, Clone)]
pub struct CheckedPolicy {
    /// The text.
    pub text: String,
    /// What it says.
    pub policy: Arc<Policy>,
    /// That, for the users and nodes it was checked with.
    pub compiled: CompiledPolicy,
}

/// Reads a policy. Login domains are not checked: users of a domain may come later than the rules about them.
///
/// # Errors
/// [`PolicyError::Empty`] and [`PolicyError::Invalid`].
pub fn read_policy(text: &str) -> Result<Arc<Policy>, PolicyError> {
    if text.trim().is_empty() {
        return Err(PolicyError::Empty);
    }
    Ok(Arc::new(Policy::parse(text, None)?))
}

/// Reads a policy, compiles it for the tailnet as it is and runs its tests; on a thread of its own, for that takes
/// a while where the policy or the tailnet is large.
///
/// # Errors
/// [`PolicyError`] says what stands against the text.
pub async fn check_policy(
    text: String,
    snapshot: Arc<Snapshot>,
) -> Result<CheckedPolicy, PolicyError> {
    let check = move || {
        let policy = read_policy(&text)?;
        let compiled = snapshot.policy.recompiled(policy.clone());
        let report = compiled.run_tests();
        if report.passed() {
            Ok(CheckedPolicy { text, policy, compiled })
        } else {
            Err(PolicyError::TestsFailed(report))
        }
    };
    tokio::task::spawn_blocking(check).await.unwrap_or(Err(PolicyError::Stopping))
}
