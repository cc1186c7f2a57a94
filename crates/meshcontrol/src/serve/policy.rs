//! Which policy is in force at the start, and a policy file that is followed from then on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use mesh_config::Config;
use mesh_policy::{POLICY_BYTES_MAX, Policy};
use mesh_server::metrics::{Metrics, PolicySource};
use mesh_server::{CheckedPolicy, api, check_policy, read_policy};
use mesh_state::{Command, NewPolicy, Outcome, policy_digest};
use mesh_store::Handle;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often the file is looked at. A change that two looks in a row find the same is taken in.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often a file that is not in force is tried again, and its problems are told again: what stood against it may be
/// the database, or a user that its tests want.
const REMIND_EVERY: Duration = Duration::from_mins(1);

/// How a policy of a file is recorded, in [`mesh_model::PolicyVersion::created_by`].
const AUTHOR: &str = "file";

/// The policy to start with. There is no other way to one: what cannot be read stops the server, for the alternative
/// would be to let everybody reach everybody.
pub(crate) struct FirstPolicy {
    /// What it says.
    pub(crate) policy: Arc<Policy>,
    /// The file it is from, and its text.
    file: Option<(PathBuf, String)>,
}

impl FirstPolicy {
    /// Reads the file that the configuration names, or else the newest version of the database; the default policy
    /// if neither is there.
    pub(crate) async fn read(
        config: &Config,
        tailnet: &mesh_model::Tailnet,
    ) -> anyhow::Result<Self> {
        if let Some(path) = config.policy.file() {
            let shown = path.display();
            let text = read_file(path)
                .await
                .with_context(|| format!("cannot read the policy file {shown}"))?;
            let policy = read_policy(&text).with_context(|| {
                format!("the policy file {shown} is not valid: correct it and start again")
            })?;
            return Ok(Self { policy, file: Some((path.to_owned(), text)) });
        }
        let Some(version) = tailnet.policy_version() else {
            return Ok(Self { policy: Arc::default(), file: None });
        };
        let policy = read_policy(&version.text).with_context(|| {
            format!(
                "the policy in the database (version {} of {}, by {}) is not valid for this version of \
                 meshcontrol: write a valid one to a file and name it in policy.path",
                version.id, version.created_at, version.created_by
            )
        })?;
        Ok(Self { policy, file: None })
    }

    /// Records the policy of a file and has it approve routes; `None` without a file. Tests that fail do not stop the server,
    /// which would turn a renamed user into an outage: they are logged.
    pub(crate) async fn settle(self, store: &Handle) -> anyhow::Result<Option<Follower>> {
        let report = store.snapshot().policy.run_tests();
        if !report.passed() {
            tracing::error!(%report, "the policy in force fails its own tests");
        }
        let Some((path, text)) = self.file else { return Ok(None) };
        let seen = policy_digest(&text);
        put_in_force(store, text, self.policy).await.context("cannot record the policy file")?;
        let problem = watch::Sender::new(None);
        let (store, metrics) = (store.clone(), Metrics::default());
        Ok(Some(Follower { path, store, taken: seen, problem, metrics }))
    }
}

/// Follows a policy file: what is in it comes into force, unless it is wrong.
pub(crate) struct Follower {
    path: PathBuf,
    store: Handle,
    /// Digest of the text that was last looked into, whatever came of it.
    taken: String,
    /// Why the file as it is now is not in force.
    problem: watch::Sender<Option<String>>,
    metrics: Metrics,
}

/// When a file counts as unchanged without being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    bytes: u64,
    /// Another file may have been put in its place.
    inode: u64,
}

impl Follower {
    /// What the API tells of the file.
    pub(crate) fn shown(&self) -> api::PolicyFile {
        api::PolicyFile { path: self.path.clone(), problem: self.problem.subscribe() }
    }

    /// Measures into `metrics`.
    pub(crate) fn measured(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Looks at the file again and again, and reads it on each SIGHUP, until `stop`.
    pub(crate) async fn run(mut self, mut hangups: Signal, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reminders = tokio::time::interval(REMIND_EVERY);
        reminders.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The file may have changed since it was read: the first look takes in whatever is there.
        let (mut seen, mut settled) = (None, None);
        loop {
            tokio::select! {
                // Rank: stopping, what an operator asks for, chores.
                biased;
                () = stop.cancelled() => return,
                _ = hangups.recv() => {
                    tracing::info!(path = %self.path.display(), "SIGHUP: the policy file is read again");
                    self.take_in(true).await;
                }
                _ = looks.tick() => {
                    let now = Some(stamp(&self.path).await.ok());
                    if seen == now && settled != now {
                        self.take_in(false).await;
                        settled = now;
                    }
                    seen = now;
                }
                _ = reminders.tick() => {
                    if self.problem.borrow().is_some() {
                        self.take_in(true).await;
                    }
                }
            }
        }
    }

    /// Puts the file's text in force, if it is another one or is to be put in force `again`; a text that is wrong changes nothing.
    async fn take_in(&mut self, again: bool) {
        let problem = match read_file(&self.path).await {
            Ok(text) => {
                let digest = policy_digest(&text);
                if !again && digest == self.taken && self.problem.borrow().is_none() {
                    return;
                }
                self.taken.clone_from(&digest);
                self.put(text, &digest).await.err()
            }
            Err(error) => Some(error),
        };
        self.metrics.policy_reloaded(PolicySource::File, problem.is_none());
        if let Some(problem) = &problem {
            tracing::error!(
                path = %self.path.display(),
                "the policy file is not in force, the last good policy stays: {problem:#}"
            );
        }
        self.problem.send_replace(problem.map(|problem| format!("{problem:#}")));
    }

    async fn put(&self, text: String, digest: &str) -> anyhow::Result<()> {
        let snapshot = self.store.snapshot();
        let newest = snapshot.tailnet.policy_version();
        // Of what is in force already only the approvals are wanted, also if its tests have come to fail.
        if newest.is_some_and(|newest| newest.digest == digest) {
            return put_in_force(&self.store, text, snapshot.policy.policy().clone()).await;
        }
        let CheckedPolicy { text, policy, .. } = check_policy(text, snapshot).await?;
        put_in_force(&self.store, text, policy).await
    }
}

async fn put_in_force(store: &Handle, text: String, policy: Arc<Policy>) -> anyhow::Result<()> {
    let new = NewPolicy { text, policy, created_by: AUTHOR.to_owned(), replaces: None };
    let outcome = store.submit(Command::SetPolicy(Box::new(new))).await?;
    if let Outcome::Policy(version) = outcome {
        tracing::info!(policy.version = version.id.0, "the policy file is in force");
    }
    Ok(())
}

async fn stamp(path: &Path) -> std::io::Result<Stamp> {
    use std::os::unix::fs::MetadataExt as _;

    let metadata = tokio::fs::metadata(path).await?;
    Ok(Stamp { modified: metadata.modified()?, bytes: metadata.len(), inode: metadata.ino() })
}

/// Reads a file of at most as many bytes as a policy may have.
async fn read_file(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(POLICY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await?;
    anyhow::ensure!(bytes.len() <= POLICY_BYTES_MAX, "it is longer than {POLICY_BYTES_MAX} bytes");
    String::from_utf8(bytes).context("it is not UTF-8")
}
