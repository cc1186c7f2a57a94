//! The tailnets of the workloads: made by `benchgen`, then put into a server.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::server::{Owner, Server};
use crate::command::execute;

/// How many keys are asked for at once: a server that hashes keys slowly does it on all processors.
const MINTED_AT_ONCE: usize = 4;

/// Which tailnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) nodes: usize,
    /// None: everybody may reach everybody.
    pub(crate) rules: usize,
    /// Whether there is a rule for `autogroup:self`.
    pub(crate) with_self: bool,
    /// Whether each node has a key of its own, instead of one that its owner's nodes share.
    pub(crate) key_per_node: bool,
}

/// A tailnet as files.
#[derive(Debug)]
pub(crate) struct Tailnet {
    spec: Spec,
    directory: TempDir,
}

/// One node of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its name, which peers see.
    pub(crate) hostname: String,
    pub(crate) owner: Owner,
}

impl Tailnet {
    /// Makes the files.
    ///
    /// # Errors
    /// `benchgen` fails.
    pub(crate) fn generate(benchgen: &Path, spec: Spec) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("meshcontrol-tailnet-").tempdir()?;
        let mut command = Command::new(benchgen);
        command.arg("tailnet").arg("--into").arg(directory.path());
        command.args(["--nodes", &spec.nodes.to_string(), "--rules", &spec.rules.to_string()]);
        if spec.with_self {
            command.arg("--with-self");
        }
        execute(&mut command)?;
        Ok(Self { spec, directory })
    }

    /// One of its files.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Whether everybody may reach everybody.
    pub(crate) fn is_open(&self) -> bool {
        self.spec.rules == 0
    }

    /// Makes its users, puts its policy into force and mints its keys: a key for each node, in order.
    ///
    /// # Errors
    /// The server refuses something.
    pub(crate) fn put_into(&self, server: &mut Server) -> Result<Vec<(String, Node)>> {
        for line in fs::read_to_string(self.file("users"))?.lines() {
            let (name, email) = line.split_once(' ').context("a user without an address")?;
            server.create_user(name, email)?;
        }
        if !self.is_open() {
            server.set_policy(&self.file("policy.hujson"))?;
        }
        let nodes = self.nodes()?;
        if self.spec.key_per_node {
            let owners: Vec<_> = nodes.iter().map(|node| node.owner.clone()).collect();
            let keys = mint(server, &owners, false)?;
            return Ok(keys.into_iter().zip(nodes).collect());
        }
        let mut owners: Vec<_> = nodes.iter().map(|node| node.owner.clone()).collect();
        owners.sort();
        owners.dedup();
        let keys = mint(server, &owners, true)?;
        let keys: BTreeMap<_, _> = owners.into_iter().zip(keys).collect();
        Ok(nodes.into_iter().map(|node| (keys[&node.owner].clone(), node)).collect())
    }

    fn nodes(&self) -> Result<Vec<Node>> {
        fs::read_to_string(self.file("nodes"))?.lines().map(parse_node).collect()
    }
}

/// Reads `HOSTNAME user:NAME` or `HOSTNAME tag:NAME`.
fn parse_node(line: &str) -> Result<Node> {
    let Some((hostname, owner)) = line.split_once(' ') else { bail!("a node without an owner") };
    let owner = match owner.strip_prefix("user:") {
        Some(name) => Owner::User(name.to_owned()),
        None => Owner::Tags(owner.to_owned()),
    };
    Ok(Node { hostname: hostname.to_owned(), owner })
}

/// Mints a key for each owner, several at once.
fn mint(server: &Server, owners: &[Owner], is_for_many: bool) -> Result<Vec<String>> {
    let keys = Mutex::new(vec![String::new(); owners.len()]);
    let share = |first: usize| -> Result<()> {
        for index in (first..owners.len()).step_by(MINTED_AT_ONCE) {
            let key = server.mint(&owners[index], is_for_many)?;
            keys.lock().unwrap_or_else(PoisonError::into_inner)[index] = key;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let share = &share;
        let threads: Vec<_> =
            (0..MINTED_AT_ONCE).map(|first| scope.spawn(move || share(first))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(outcome) => outcome,
            Err(_) => bail!("minting keys panicked"),
        })
    })?;
    Ok(keys.into_inner().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests;
