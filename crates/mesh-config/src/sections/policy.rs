//! `policy`: where the rules of who may reach whom are kept.

use std::path::{Path, PathBuf};

use crate::finding::Report;
use crate::key::section;
use crate::types::choice;

section! {
    /// Rules of who may reach whom.
    pub struct Policy {
        /// Where the policy is kept: database, where the API and the command line change it, or file,
        /// which is read again when it changes. Unset: file if `policy.path` is set, else database.
        pub mode: Option<PolicyMode> = "policy.mode", "\"\"";
        /// File with the policy in HuJSON. Without one the policy is in the database, and as long as
        /// nobody has set any every node may reach every other.
        pub path: Option<PathBuf> = "policy.path", "\"\"";
    }
}

choice! {
    /// Where the policy is kept.
    pub enum PolicyMode {
        /// In the database.
        Database = "database",
        /// In a file.
        File = "file",
    }
}

impl Policy {
    /// The file that holds the policy; `None` if the database does. A mode of `file` without a path, which
    /// headscale's example has, leaves a policy of the database in force.
    pub fn file(&self) -> Option<&Path> {
        match self.mode {
            Some(PolicyMode::Database) => None,
            Some(PolicyMode::File) | None => self.path.as_deref(),
        }
    }

    pub(crate) fn check(&self, report: &mut Report) {
        if self.mode == Some(PolicyMode::Database) && self.path.is_some() {
            report.warning("policy.path", "is not read, for policy.mode is database");
        }
    }
}
