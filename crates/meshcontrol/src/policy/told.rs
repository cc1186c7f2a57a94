//! Answers that bring their own text for people.

use std::fmt::Display;

use mesh_cli::Output;
use mesh_policy::TestReport;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A report's member that says whether all went well.
const PASSED: &str = "passed";

/// What a program reads, and what a person reads.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    text: String,
    #[serde(flatten)]
    answer: Map<String, Value>,
}

impl Told {
    /// Something that was worked out here, as the server would tell it.
    pub(super) fn of(answer: &(impl Serialize + Display)) -> anyhow::Result<Self> {
        let text = format!("{answer:#}");
        Ok(Self { text, answer: serde_json::from_value(serde_json::to_value(answer)?)? })
    }

    /// What came of tests, as the server would tell it.
    pub(super) fn report(report: &TestReport) -> anyhow::Result<Self> {
        let mut told = Self::of(report)?;
        told.answer.insert(PASSED.to_owned(), report.passed().into());
        Ok(told)
    }

    pub(super) fn print(&self, output: Output) -> anyhow::Result<()> {
        output.value(&self.answer, || self.text.clone())
    }

    /// Whether all tests passed; for others than reports it says nothing.
    pub(super) fn passed(&self) -> bool {
        self.answer.get(PASSED) == Some(&Value::Bool(true))
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn answer(&self) -> &Map<String, Value> {
        &self.answer
    }
}
