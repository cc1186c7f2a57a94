//! What came out: a table for each workload, a line for each case and relay.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// What `derpload` says of a case.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Case {
    name: String,
    /// Name with unit, and value, in the order of their columns.
    figures: Vec<(String, f64)>,
    verdict: Verdict,
}

/// What must not happen, and what may.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Verdict {
    out_of_order: u64,
    duplicated: u64,
    misrouted: u64,
    lost: u64,
    quiet_lost: u64,
    cut: u64,
    bench_is_limit: bool,
}

/// All runs, by workload in the order of the first run.
#[derive(Debug, Default)]
pub(super) struct Tables(Vec<Table>);

#[derive(Debug)]
struct Table {
    workload: String,
    rows: Vec<Row>,
}

/// The runs of a case on a relay.
#[derive(Debug)]
struct Row {
    case: String,
    relay: String,
    runs: Vec<Case>,
}

impl Tables {
    /// Adds what came out of a run.
    pub(super) fn add(&mut self, workload: &str, relay: &str, cases: Vec<Case>) {
        let place = self.0.iter().position(|table| table.workload == workload);
        let place = place.unwrap_or_else(|| {
            self.0.push(Table { workload: workload.to_owned(), rows: Vec::new() });
            self.0.len() - 1
        });
        let table = &mut self.0[place];
        for case in cases {
            table.add(relay, case);
        }
    }
}

impl Table {
    fn add(&mut self, relay: &str, case: Case) {
        let is_it = |row: &Row| row.relay == relay && row.case == case.name;
        if let Some(place) = self.rows.iter().position(is_it) {
            self.rows[place].runs.push(case);
            return;
        }
        // Relays stand below each other.
        let same = self.rows.iter().rposition(|row| row.case == case.name);
        let row = Row { case: case.name.clone(), relay: relay.to_owned(), runs: vec![case] };
        self.rows.insert(same.map_or(self.rows.len(), |place| place + 1), row);
    }

    /// All figures that any row has, in their order.
    fn columns(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = Vec::new();
        for (name, _) in self.rows.iter().flat_map(|row| &row.runs).flat_map(|case| &case.figures) {
            if !columns.contains(&name.as_str()) {
                columns.push(name);
            }
        }
        columns
    }
}

impl Row {
    fn medians(&self) -> BTreeMap<&str, f64> {
        let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (name, value) in self.runs.iter().flat_map(|case| &case.figures) {
            values.entry(name).or_default().push(*value);
        }
        values.into_iter().map(|(name, values)| (name, median(values))).collect()
    }

    /// The worst of what must not happen, and the median of what may.
    fn verdict(&self) -> String {
        let worst = |count: fn(&Verdict) -> u64| {
            self.runs.iter().map(|case| count(&case.verdict)).max().unwrap_or_default()
        };
        let mut words = vec![format!(
            "{} out of order, {} duplicated",
            worst(|verdict| verdict.out_of_order),
            worst(|verdict| verdict.duplicated)
        )];
        let counts = [
            (worst(|verdict| verdict.misrouted), "misrouted"),
            (worst(|verdict| verdict.lost), "lost"),
            (worst(|verdict| verdict.quiet_lost), "lost by quiet pairs"),
            (worst(|verdict| verdict.cut), "cut"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        words.extend(counts.map(|(count, what)| format!("{count} {what}")));
        if self.runs.iter().any(|case| case.verdict.bench_is_limit) {
            words.push("**the bench is the limit**".to_owned());
        }
        words.join(", ")
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|table| writeln!(f, "{table}"))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.columns();
        writeln!(
            f,
            "**{}**\n\n| case | relay | {} | verdict |",
            self.workload,
            columns.join(" | ")
        )?;
        writeln!(f, "|---|---|{}---|", "---|".repeat(columns.len()))?;
        for row in &self.rows {
            let medians = row.medians();
            write!(f, "| {} | {} ", row.case, row.relay)?;
            for column in &columns {
                match medians.get(column) {
                    Some(value) => write!(f, "| {} ", rounded(*value))?,
                    None => write!(f, "| - ")?,
                }
            }
            writeln!(f, "| {} |", row.verdict())?;
        }
        Ok(())
    }
}

/// With three digits that tell something.
fn rounded(value: f64) -> String {
    match value.abs() {
        0.0..0.1 => format!("{value:.3}"),
        0.1..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, rate: f64, lost: u64) -> Case {
        let figures = vec![("kpkt/s".to_owned(), rate)];
        Case { name: name.to_owned(), figures, verdict: Verdict { lost, ..Verdict::default() } }
    }

    #[test]
    fn relays_stand_below_each_other_with_the_median_and_the_worst() {
        let mut tables = Tables::default();
        for (rate, lost) in [(300.0, 0), (1.0, 7), (2.25, 0)] {
            tables.add("throughput", "ours", vec![case("a", rate, lost), case("b", 12.34, 0)]);
            tables.add("throughput", "theirs", vec![case("a", 0.0123, 0)]);
        }
        let expected = "\
**throughput**

| case | relay | kpkt/s | verdict |
|---|---|---|---|
| a | ours | 2.25 | 0 out of order, 0 duplicated, 7 lost |
| a | theirs | 0.012 | 0 out of order, 0 duplicated |
| b | ours | 12.3 | 0 out of order, 0 duplicated |

";
        assert_eq!(tables.to_string(), expected);
    }
}
