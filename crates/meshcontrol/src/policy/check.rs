//! `meshcontrol policy check`: whether a policy could be set.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use mesh_policy::{Policy, Problems, TestReport};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::source::{located, read_text};
use super::told::Told;
use super::topology::Topology;
use crate::client::Unreachable;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The policy; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Run its tests in the tailnet of this file, instead of the server's
    #[arg(long, value_name = "FILE")]
    topology: Option<PathBuf>,
}

/// What was found out.
#[derive(Debug, Serialize)]
struct Checked {
    /// Whether nothing that was looked at stands against the policy.
    valid: bool,
    /// What is wrong with the text.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    problems: Option<Problems>,
    /// What came of the policy's tests, if they were run.
    #[serde(skip_serializing_if = "Option::is_none")]
    tests: Option<Map<String, Value>>,
    /// Why they were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    untested: Option<String>,
}

impl CheckArgs {
    pub(super) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let topology = self.topology.as_deref().map(Topology::read).transpose()?;
        let domains = topology.as_ref().and_then(|topology| topology.domains.as_deref());
        let text = read_text(&self.file)?;
        let policy = match Policy::parse(&text, domains) {
            Ok(policy) => policy,
            Err(problems) => return self.refuse(session, problems),
        };
        let summary = format!("{} can be used: {}", self.file.display(), summary(&policy));
        let tested = match topology {
            Some(topology) => Ok(Told::report(&topology.compile(Arc::new(policy)).run_tests())?),
            None => ask_server(session, &policy, &text).await?,
        };
        let checked = Checked {
            valid: tested.as_ref().map_or(true, Told::passed),
            problems: None,
            tests: tested.as_ref().ok().map(|report| report.answer().clone()),
            untested: tested.as_ref().err().cloned(),
        };
        let text = match &tested {
            Ok(report) => report.text().to_owned(),
            Err(why) => format!("its tests were not run: {why}"),
        };
        session
            .output()
            .value(&checked, || if checked.valid { format!("{summary}\n{text}") } else { text })?;
        anyhow::ensure!(checked.valid, "{} cannot be used: test(s) failed", self.file.display());
        Ok(())
    }

    fn refuse(&self, session: &Session, problems: Problems) -> anyhow::Result<()> {
        let text = located(&self.file, &problems);
        let count = problems.problems.len() + problems.more;
        let checked =
            Checked { valid: false, problems: Some(problems), tests: None, untested: None };
        session.output().value(&checked, || text)?;
        bail!("{} cannot be used: {}", self.file.display(), counted(count, "problem"));
    }
}

/// Has the server run the tests, if there are any and it answers; else says why not.
async fn ask_server(
    session: &Session,
    policy: &Policy,
    text: &str,
) -> anyhow::Result<Result<Told, String>> {
    if policy.tests.is_empty() && policy.ssh_tests.is_empty() {
        return Ok(Ok(Told::report(&TestReport { tests: Vec::new() })?));
    }
    let client = session.client()?.impatient();
    match client.post(&["policy", "test"], &json!({ "policy": text })).await {
        Ok(report) => Ok(Ok(report)),
        Err(error) if error.is::<Unreachable>() => {
            Ok(Err(format!("{error:#}, or give a --topology")))
        }
        Err(error) => Err(error),
    }
}

/// What there is in a policy.
fn summary(policy: &Policy) -> String {
    let (grants, acls) = (policy.grants.as_deref(), policy.acls.as_deref());
    let (grants, acls) = (grants.map_or(0, <[_]>::len), acls.map_or(0, <[_]>::len));
    let reach = match (policy.allows_all(), grants + acls) {
        (true, _) => Some("everybody reaches everybody".to_owned()),
        (false, 0) => Some("nobody reaches anybody".to_owned()),
        (false, _) => None,
    };
    let counts = [
        (grants, "grant"),
        (acls, "acl"),
        (policy.ssh.len(), "ssh rule"),
        (policy.node_attrs.len(), "node attribute"),
        (policy.tests.len() + policy.ssh_tests.len(), "test"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let parts = reach.into_iter().chain(counts.map(|(count, noun)| counted(count, noun)));
    parts.collect::<Vec<_>>().join(", ")
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
