//! The workloads W1 to W8: which tailnet, which phase of the harness, and what is to be reached.

use std::collections::BTreeSet;

use clap::ValueEnum;

use super::tailnet::Spec;

/// A workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Workload {
    /// 2000 nodes at once, everybody sees everybody, one key
    W1,
    /// 2000 nodes at once under 15,000 rules
    W2,
    /// 1000 nodes at once under 5000 rules and one for autogroup:self, stock clients among them
    W3,
    /// 500 nodes at once with 500 keys, under 14,600 rules
    W4,
    /// One more joins 2000
    W5,
    /// One of 2000 goes and comes, and one changes its endpoints
    W6,
    /// One rule more among 15,000, with 2000 nodes
    W7,
    /// 2000 come back after the server was started again
    W8,
}

/// What is to be reached, in seconds: processor time of the server, and how long it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) cpu: f64,
    pub(crate) wall: Option<f64>,
    /// What cannot be beaten with this protocol on two processors: kernel, cryptography, bytes.
    pub(crate) floor: f64,
}

/// Workloads that one run of the harness measures, for they share a tailnet.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) spec: Spec,
    /// Beginning with `join`.
    pub(crate) phases: Vec<&'static str>,
    /// How many of the nodes are stock clients.
    pub(crate) stock: usize,
    pub(crate) workloads: Vec<Workload>,
}

/// Sizes other than those of the workloads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sizes {
    pub(crate) nodes: Option<usize>,
    pub(crate) rules: Option<usize>,
}

impl Sizes {
    /// Whether the workloads have their own sizes, for which their goals are.
    pub(crate) fn is_full(self) -> bool {
        self.nodes.is_none() && self.rules.is_none()
    }
}

/// Stock clients in W3.
const STOCK: usize = 5;

impl Workload {
    /// The phases of the harness that are its figures.
    pub(crate) fn phases(self) -> &'static [&'static str] {
        match self {
            Self::W1 | Self::W2 | Self::W3 | Self::W4 => &["join"],
            Self::W5 => &["join-one"],
            Self::W6 => &["flap", "endpoints"],
            Self::W7 => &["policy-edit"],
            Self::W8 => &["restart-server"],
        }
    }

    /// What is to be reached at the workload's own size. PERFORMANCE 4b and 4c have the arithmetic.
    pub(crate) fn goal(self) -> Goal {
        let (cpu, wall, floor) = match self {
            Self::W1 => (4.0, Some(8.0), 1.4),
            Self::W2 => (2.5, Some(5.0), 0.8),
            Self::W3 => (1.0, Some(2.0), 0.4),
            Self::W4 => (1.2, None, 0.1),
            Self::W5 => (0.020, Some(0.1), 0.0138),
            Self::W6 => (0.016, None, 0.0135),
            Self::W7 => (0.030, None, 0.0035),
            Self::W8 => (3.0, Some(10.0), 1.0),
        };
        Goal { cpu, wall, floor }
    }

    fn spec(self, sizes: Sizes) -> Spec {
        let (nodes, rules) = match self {
            Self::W1 | Self::W5 | Self::W6 | Self::W8 => (2000, 0),
            Self::W2 | Self::W7 => (2000, 15_000),
            Self::W3 => (1000, 5000),
            Self::W4 => (500, 14_600),
        };
        Spec {
            nodes: sizes.nodes.unwrap_or(nodes),
            rules: sizes.rules.filter(|_| rules > 0).unwrap_or(rules),
            with_self: self == Self::W3,
            key_per_node: self == Self::W4,
        }
    }
}

impl Session {
    /// How many fake nodes join at once: those that join later and those that are stock clients are not among them.
    pub(crate) fn together(&self) -> usize {
        let single = |phase: &&&str| **phase == "join-one";
        self.spec.nodes - self.stock - self.phases.iter().filter(single).count()
    }

    /// What it is called in the names of phases and files.
    pub(crate) fn title(&self) -> String {
        let names: Vec<_> = self.workloads.iter().map(|workload| format!("{workload:?}")).collect();
        format!("{}-{}", names.join("-"), self.together() + self.stock)
    }
}

/// The fewest sessions that measure all of some workloads.
pub(crate) fn sessions(workloads: &BTreeSet<Workload>, sizes: Sizes) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    for workload in workloads {
        let spec = workload.spec(sizes);
        let known = sessions.iter_mut().find(|session| session.spec == spec);
        if let Some(session) = known {
            session.phases.extend(workload.phases().iter().filter(|phase| **phase != "join"));
            session.workloads.push(*workload);
            continue;
        }
        let mut phases = vec!["join"];
        phases.extend(workload.phases().iter().filter(|phase| **phase != "join"));
        let stock = if *workload == Workload::W3 { STOCK } else { 0 };
        sessions.push(Session { spec, phases, stock, workloads: vec![*workload] });
    }
    for session in &mut sessions {
        // Who joins alone comes on top.
        session.spec.nodes += session.phases.iter().filter(|phase| **phase == "join-one").count();
    }
    sessions
}

#[cfg(test)]
mod tests;
