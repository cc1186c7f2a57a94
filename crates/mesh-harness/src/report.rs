//! What came out, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// The whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) url: String,
    pub(crate) seed: u64,
    pub(crate) compress: String,
    /// Worker threads of the harness.
    pub(crate) threads: usize,
    /// Whether every phase was carried out and [`Phase::is_right`].
    pub(crate) right: bool,
    /// Why the run ended before its last phase.
    pub(crate) error: Option<String>,
    pub(crate) phases: Vec<Phase>,
}

/// What one phase brought. Times are in milliseconds from its beginning, processor time in seconds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Phase {
    pub(crate) name: String,
    /// Nodes that were to be connected.
    pub(crate) nodes: usize,
    /// Nodes that saw in the end what they should.
    pub(crate) converged: usize,
    /// Until all had.
    pub(crate) wall_ms: f64,
    /// From one node to the next.
    pub(crate) convergence: Option<Spread>,
    /// From its first dial to its answer, for each node that joined.
    pub(crate) registration: Option<Spread>,
    /// What else there is to tell; names end in the unit.
    pub(crate) facts: BTreeMap<&'static str, f64>,
    pub(crate) wrong: usize,
    pub(crate) missing: usize,
    /// Peers listed twice in one message.
    pub(crate) extra: u64,
    /// Sampled nodes that were compared with a fresh map.
    pub(crate) samples: usize,
    /// What was different in them, and rules that their messages broke.
    pub(crate) differences: Vec<String>,
    /// Changes and removals of peers that the node did not have.
    pub(crate) strays: u64,
    pub(crate) messages: u64,
    pub(crate) keep_alives: u64,
    pub(crate) bytes: u64,
    pub(crate) json_bytes: u64,
    /// Connections that ended though nobody had ordered it.
    pub(crate) cuts: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) server: Option<Server>,
    pub(crate) own_cpu_s: f64,
    pub(crate) own_memory_peak_bytes: u64,
}

/// The server's part.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Server {
    pub(crate) cpu_until_converged_s: f64,
    pub(crate) cpu_until_quiet_s: f64,
    /// When it became quiet; absent if it did not within the limit.
    pub(crate) quiet_ms: Option<f64>,
    pub(crate) memory_peak_bytes: u64,
}

/// How a time spreads over the nodes, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(clippy::struct_field_names, reason = "bare numbers carry their unit, in the report too")]
pub(crate) struct Spread {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let last = times.len().checked_sub(1)?;
        // The smallest time that so many of a hundred do not exceed.
        let at = |percent: usize| millis(times[(times.len() * percent).div_ceil(100) - 1]);
        Some(Self { p50_ms: at(50), p99_ms: at(99), max_ms: millis(times[last]) })
    }
}

impl Phase {
    /// Whether everybody saw what they should and nothing else.
    pub(crate) fn is_right(&self) -> bool {
        self.converged == self.nodes
            && self.wrong == 0
            && self.missing == 0
            && self.extra == 0
            && self.differences.is_empty()
    }
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

const HEADER: [&str; 16] = [
    "phase",
    "nodes",
    "right",
    "wall ms",
    "p50",
    "p99",
    "max",
    "wrong",
    "missing",
    "extra",
    "messages",
    "MB",
    "server CPU s",
    "until quiet",
    "RSS MB",
    "own CPU s",
];

impl Report {
    /// A table, remarks on its rows, and the verdict.
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(HEADER);
        for phase in &self.phases {
            table.add_row(phase.cells());
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = format!("{table}\n");
        for phase in &self.phases {
            for line in phase.remarks() {
                text.extend([&phase.name, ": ", &line, "\n"]);
            }
        }
        if let Some(error) = &self.error {
            text.extend(["error: ", error, "\n"]);
        }
        let verdict = if self.right { "0 wrong, 0 missing, 0 extra" } else { "NOT RIGHT" };
        text + verdict + "\n"
    }
}

impl Phase {
    /// What has no place in the table.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if !self.facts.is_empty() {
            let facts = self.facts.iter().map(|(what, value)| format!("{what} {value:.1}"));
            remarks.push(facts.collect::<Vec<_>>().join(", "));
        }
        if let Some(Spread { p50_ms: p50, p99_ms: p99, max_ms: max }) = self.registration {
            remarks.push(format!("registered_ms p50 {p50:.1}, p99 {p99:.1}, max {max:.1}"));
        }
        if self.cuts + self.strays > 0 {
            let (cuts, strays) = (self.cuts, self.strays);
            remarks.push(format!("{cuts} connections cut, {strays} changes of unknown peers"));
        }
        remarks.extend(self.errors.iter().map(|(error, times)| format!("{times} times: {error}")));
        remarks.extend(self.differences.iter().cloned());
        remarks
    }

    fn cells(&self) -> Vec<String> {
        let time = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.1}"));
        let spread = self.convergence;
        let seconds = |time: f64| format!("{time:.3}");
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let quiet = self.server.map(|server| match server.quiet_ms {
            Some(_) => seconds(server.cpu_until_quiet_s),
            None => format!(">{}", seconds(server.cpu_until_quiet_s)),
        });
        vec![
            self.name.clone(),
            self.nodes.to_string(),
            self.converged.to_string(),
            format!("{:.1}", self.wall_ms),
            time(spread.map(|spread| spread.p50_ms)),
            time(spread.map(|spread| spread.p99_ms)),
            time(spread.map(|spread| spread.max_ms)),
            self.wrong.to_string(),
            self.missing.to_string(),
            self.extra.to_string(),
            self.messages.to_string(),
            megabytes(self.bytes),
            or_none(self.server.map(|server| seconds(server.cpu_until_converged_s))),
            or_none(quiet),
            or_none(self.server.map(|server| megabytes(server.memory_peak_bytes))),
            seconds(self.own_cpu_s),
        ]
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_takes_the_nearest_rank() {
        let millis = |count: u64| (1..=count).rev().map(Duration::from_millis).collect();
        let spread = Spread::of(millis(200)).unwrap();
        assert_eq!(spread, Spread { p50_ms: 100.0, p99_ms: 198.0, max_ms: 200.0 });
        let spread = Spread::of(millis(1)).unwrap();
        assert_eq!(spread, Spread { p50_ms: 1.0, p99_ms: 1.0, max_ms: 1.0 });
        assert_eq!(Spread::of(vec![]), None);
    }
}
