//! `meshcontrol policy eval`: what a policy makes of a tailnet that is described in a file, without a server.
//!
//! Prints JSON: `{"accepted":true,"expect":{<node>:<view>}}`, or `{"accepted":false,"error_message":"…"}`.

use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use mesh_policy::{CompiledPolicy, Policy};
use serde::ser::{Error as _, SerializeMap as _};
use serde::{Serialize, Serializer};

use super::source::read_bytes;
use super::topology::Topology;
use super::views::View;

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// The policy; `-` is standard input
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The tailnet: domains, users and nodes as JSON
    #[arg(long, value_name = "FILE")]
    topology: PathBuf,
}

impl EvalArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let topology = Topology::read(&self.topology)?;
        let evaluation = Evaluation::new(&read_bytes(&self.policy)?, &topology);
        let mut out = BufWriter::new(io::stdout().lock());
        serde_json::to_writer(&mut out, &evaluation)?;
        out.write_all(b"\n")?;
        out.flush()?;
        let is_accepted = matches!(evaluation, Evaluation::Accepted { .. });
        anyhow::ensure!(is_accepted, "the policy {} is rejected", self.policy.display());
        Ok(())
    }
}

/// What becomes of a policy in a tailnet.
#[derive(Debug)]
pub(super) enum Evaluation<'a> {
    /// It can be saved.
    Accepted { topology: &'a Topology, compiled: Box<CompiledPolicy> },
    /// It cannot; all that is wrong with it.
    Rejected { why: String },
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(policy: &[u8], topology: &'a Topology) -> Self {
        match compile(policy, topology) {
            Ok(compiled) => Self::Accepted { topology, compiled: Box::new(compiled) },
            Err(why) => Self::Rejected { why },
        }
    }
}

/// Reads a policy, compiles it against the tailnet and runs its tests.
fn compile(policy: &[u8], topology: &Topology) -> Result<CompiledPolicy, String> {
    let text = std::str::from_utf8(policy).map_err(|error| format!("not UTF-8: {error}"))?;
    let policy = Policy::parse(text, topology.domains.as_deref())
        .map_err(|problems| problems.to_string())?;
    let compiled = topology.compile(Arc::new(policy));
    let report = compiled.run_tests();
    if report.passed() { Ok(compiled) } else { Err(report.to_string()) }
}

/// Views are made one by one as they are written: together they can be much larger than what they are made of.
impl Serialize for Evaluation<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        match self {
            Self::Accepted { topology, compiled } => {
                map.serialize_entry("accepted", &true)?;
                map.serialize_entry("expect", &Views { topology, compiled })?;
            }
            Self::Rejected { why } => {
                map.serialize_entry("accepted", &false)?;
                map.serialize_entry("error_message", why)?;
            }
        }
        map.end()
    }
}

struct Views<'a> {
    topology: &'a Topology,
    compiled: &'a CompiledPolicy,
}

impl Serialize for Views<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nodes = &self.topology.nodes;
        let mut map = serializer.serialize_map(Some(nodes.len()))?;
        for node in nodes {
            let view = self
                .compiled
                .view(node.facts.id)
                .ok_or_else(|| S::Error::custom("a node is missing"))?;
            map.serialize_entry(&node.name, &View::new(self.topology, node, &view))?;
        }
        map.end()
    }
}
