//! What the dependency graph must not hold: heavy crates below the cores, SQL outside its home, a second
//! TLS provider, a second copy of something heavy.
//!
//! The graph is what cargo resolves for the whole workspace, all features united, so a crate that is found
//! to be pure is pure in every build.

use std::collections::{BTreeMap, VecDeque};

use cargo_metadata::{DependencyKind, Metadata, Node, PackageId};

use super::Problem;
use super::house::{House, Layer, Member};
use super::manifests::line_of;

/// What touches the world: not below the cores.
const IMPURE: [&str; 8] = ["tokio", "sqlx", "axum", "hyper", "socket2", "mio", "reqwest", "rustls"];

/// Two crates that do not know each other: conversion between them has its own two files.
const STRANGERS: [&str; 2] = ["mesh-wire", "mesh-model"];

/// The library that speaks to databases, and the one crate that may use it.
const SQL: &str = "sqlx";
const SQL_HOME: &str = "mesh-db";

/// What must not be anywhere in the graph: there is one TLS provider, ring.
const BANNED: [&str; 4] = ["openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"];

/// What is too heavy, or too delicate, to have twice.
const ONCE: [&str; 12] = [
    "axum",
    "curve25519-dalek",
    "hyper",
    "libsqlite3-sys",
    "reqwest",
    "ring",
    "rustls",
    "serde",
    "sqlx",
    "tokio",
    "tower",
    "zstd-sys",
];

/// The packages of the workspace and what they depend on.
struct Graph<'a> {
    nodes: BTreeMap<&'a PackageId, &'a Node>,
    names: BTreeMap<&'a PackageId, &'a str>,
}

/// What is linked into a package: each package by name, with a shortest way to it.
type Closure<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// Checks the graph.
pub(super) fn check(house: &House) -> Vec<Problem> {
    let graph = Graph::new(&house.metadata);
    let mut problems = Vec::new();
    for member in &house.members {
        let closure = graph.closure(&member.id);
        problems.extend(check_purity(member, &closure));
        problems.extend(check_strangers(member, &closure));
        problems.extend(check_sql(member, &graph));
    }
    problems.extend(check_banned(&graph));
    problems.extend(check_once(&graph));
    problems
}

/// Words and cores have nothing in them that touches the world.
fn check_purity(member: &Member, closure: &Closure<'_>) -> Vec<Problem> {
    if !matches!(member.layer, Layer::Numbered(0 | 1)) {
        return Vec::new();
    }
    let found = IMPURE.iter().filter_map(|name| closure.get(name));
    found.map(|way| member.way_problem(way, "a core does not touch the world")).collect()
}

/// The wire and the model do not know each other.
fn check_strangers(member: &Member, closure: &Closure<'_>) -> Vec<Problem> {
    let [one, other] = STRANGERS;
    let stranger = match member.name.as_str() {
        name if name == one => other,
        name if name == other => one,
        _ => return Vec::new(),
    };
    let way = closure.get(stranger);
    way.map(|way| member.way_problem(way, "wire and model do not know each other"))
        .into_iter()
        .collect()
}

/// SQL has one home, and only binaries open its door.
fn check_sql(member: &Member, graph: &Graph<'_>) -> Vec<Problem> {
    let direct =
        |kinds: &[_], name| graph.direct(&member.id, kinds).any(|id| graph.names[id] == name);
    let any_kind = [DependencyKind::Normal, DependencyKind::Development, DependencyKind::Build];
    let mut problems = Vec::new();
    if member.name != SQL_HOME && direct(&any_kind, SQL) {
        let what = format!("all SQL lives in {SQL_HOME}: move the query there and drop {SQL}");
        problems.push(member.dependency_problem(SQL, &what));
    }
    let may_open = matches!(member.layer, Layer::Numbered(4) | Layer::Aside);
    if !may_open && direct(&[DependencyKind::Normal], SQL_HOME) {
        let what = format!("only binaries depend on {SQL_HOME}: use the trait of mesh-store");
        problems.push(member.dependency_problem(SQL_HOME, &what));
    }
    problems
}

fn check_banned(graph: &Graph<'_>) -> Vec<Problem> {
    let found = BANNED.iter().filter(|name| graph.names.values().any(|other| other == *name));
    found
        .map(|name| {
            let what = format!(
                "{name} is in the graph, but ring is the one TLS provider: find who brings it with \
                 `cargo tree -i {name}` and turn that feature off"
            );
            Problem::new("Cargo.lock", 1, what)
        })
        .collect()
}

fn check_once(graph: &Graph<'_>) -> Vec<Problem> {
    let copies = |name: &str| graph.names.values().filter(|other| **other == name).count();
    let twice = ONCE.iter().filter(|name| copies(name) > 1);
    twice
        .map(|name| {
            let what = format!(
                "{} copies of {name}: see `cargo tree -d` and agree on one version",
                copies(name)
            );
            Problem::new("Cargo.lock", 1, what)
        })
        .collect()
}

impl<'a> Graph<'a> {
    fn new(metadata: &'a Metadata) -> Self {
        let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
        let names = metadata.packages.iter().map(|package| (&package.id, package.name.as_str()));
        Self { nodes: nodes.map(|node| (&node.id, node)).collect(), names: names.collect() }
    }

    /// The direct dependencies of `id` of any of `kinds`.
    fn direct(
        &self,
        id: &PackageId,
        kinds: &[DependencyKind],
    ) -> impl Iterator<Item = &'a PackageId> {
        let dependencies = self.nodes.get(id).map(|node| &node.deps[..]).unwrap_or_default();
        dependencies
            .iter()
            .filter(move |dep| dep.dep_kinds.iter().any(|info| kinds.contains(&info.kind)))
            .map(|dep| &dep.pkg)
    }

    fn closure(&self, start: &PackageId) -> Closure<'a> {
        let mut ways: BTreeMap<&PackageId, Vec<&'a str>> = BTreeMap::new();
        let mut open = VecDeque::from([(start, Vec::new())]);
        while let Some((id, way)) = open.pop_front() {
            for dependency in self.direct(id, &[DependencyKind::Normal]) {
                if !ways.contains_key(dependency) {
                    let way = [&way[..], &[self.names[dependency]]].concat();
                    ways.insert(dependency, way.clone());
                    open.push_back((dependency, way));
                }
            }
        }
        ways.into_iter().map(|(id, way)| (self.names[id], way)).collect()
    }
}

impl Member {
    /// A problem at the dependency that begins `way`.
    fn way_problem(&self, way: &[&str], rule: &str) -> Problem {
        let what = format!("{} reaches {}: {rule}", self.name, way.join(" -> "));
        self.dependency_problem(way.first().unwrap_or(&""), &what)
    }

    /// A problem at the line of the manifest that names `dependency`.
    pub(super) fn dependency_problem(&self, dependency: &str, what: &str) -> Problem {
        Problem::new(&self.manifest_path, line_of(&self.manifest, dependency), what)
    }
}
