//! Tailnets as files, one thing per line.
//!
//! | file | a line |
//! |---|---|
//! | `nodes` | `HOSTNAME user:NAME` or `HOSTNAME tag:NAME` |
//! | `users` | `NAME EMAIL` |
//! | `policy.hujson` | absent when everybody may reach everybody |
//! | `expected` | `HOSTNAME PEER PEER ...` |
//! | `edited.hujson`, `edited-expected` | the same after one rule more, which lets the nodes of one tag meet those of another |

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use mesh_model::NodeId;
use mesh_policy::{NodeFacts, NodeOwner, Policy};
use mesh_testkit::Naive;
use mesh_testkit::large::{Large, Size};

/// Whom all nodes belong to where everybody may reach everybody.
const ONLY_USER: &str = "bench";

/// Which tailnet, and where it goes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Nodes
    #[arg(long)]
    nodes: usize,
    /// Rules; 0 for no policy, by which everybody may reach everybody
    #[arg(long, default_value_t = 0)]
    rules: usize,
    /// Everybody reaches their own devices too
    #[arg(long)]
    with_self: bool,
    /// The directory to write into
    #[arg(long)]
    into: PathBuf,
}

/// Whom each node sees.
type Visibility = BTreeMap<NodeId, BTreeSet<NodeId>>;

/// Writes the files of a tailnet.
pub(crate) fn write(options: &Options) -> Result<()> {
    let files = if options.rules == 0 {
        without_policy(options.nodes)
    } else {
        let size = Size { with_self: options.with_self, ..Size::new(options.nodes, options.rules) };
        with_policy(&Large::new(size))?
    };
    let into = super::made(&options.into)?;
    for (name, text) in files {
        fs::write(into.join(name), text).with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn without_policy(nodes: usize) -> Vec<(&'static str, String)> {
    let ids = || (1..=u32::try_from(nodes).unwrap_or(u32::MAX)).map(NodeId);
    let nodes = lines(ids().map(|id| format!("{} user:{ONLY_USER}", hostname(id))));
    let all: BTreeSet<NodeId> = ids().collect();
    let others = |id: NodeId| all.iter().copied().filter(|other| *other != id).collect();
    let visibility = ids().map(|id| (id, others(id))).collect();
    vec![
        ("nodes", nodes),
        ("users", format!("{ONLY_USER} {ONLY_USER}@example.com\n")),
        ("expected", expected(&visibility)),
    ]
}

fn with_policy(large: &Large) -> Result<Vec<(&'static str, String)>> {
    let before = visibility(large, &large.policy)?;
    let edited = edited(large, &before).context("no two tags whose nodes do not meet")?;
    let after = visibility(large, &edited)?;
    let users = large.users.iter().map(|user| format!("{} {}", user.name, user.email));
    let nodes = large.nodes.iter().map(|node| format!("{} {}", hostname(node.id), owner(node)));
    Ok(vec![
        ("nodes", lines(nodes)),
        ("users", lines(users)),
        ("policy.hujson", large.policy.clone()),
        ("expected", expected(&before)),
        ("edited.hujson", edited),
        ("edited-expected", expected(&after)),
    ])
}

/// The peers of each node by the naive evaluator, which knows nothing of the engine.
fn visibility(large: &Large, policy: &str) -> Result<Visibility> {
    let policy = Policy::parse(policy, None).map_err(|problems| anyhow!("{problems}"))?;
    Ok(Naive::visibility(&policy, &large.users, &large.nodes, &BTreeMap::new()))
}

/// The policy with one rule more, between two tags that have nodes which do not see each other.
fn edited(large: &Large, before: &Visibility) -> Option<String> {
    let tagged = || large.nodes.iter().filter_map(|node| Some((node.id, node.tags().first()?)));
    let (one, other) = tagged().find_map(|(one, src)| {
        let (_, dst) = tagged().find(|(id, dst)| *dst != src && !before[&one].contains(id))?;
        Some((src, dst))
    })?;
    let rule = format!(r#"{{"action": "accept", "src": ["{one}"], "dst": ["{other}:443"]}}"#);
    let (head, tail) = large.policy.rsplit_once("  ],")?;
    Some(format!("{head}    {rule},\n  ],{tail}"))
}

fn hostname(id: NodeId) -> String {
    format!("node{}", id.0)
}

fn owner(node: &NodeFacts) -> String {
    match &node.owner {
        NodeOwner::User(user) => format!("user:user{}", user.0 - 1),
        NodeOwner::Tags(tags) => tags.join(","),
    }
}

fn expected(visibility: &Visibility) -> String {
    let line = |(id, peers): (&NodeId, &BTreeSet<NodeId>)| {
        let names = std::iter::once(id).chain(peers).map(|id| hostname(*id));
        names.collect::<Vec<_>>().join(" ")
    };
    lines(visibility.iter().map(line))
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.fold(String::new(), |text, line| text + &line + "\n")
}
