//! `log`: what is logged, and how.

use crate::key::section;
use crate::types::choice;

section! {
    /// What is logged, and how.
    pub struct Log {
        /// Least severity that is logged: trace, debug, info, warn or error.
        pub level: LogLevel = "log.level", "info";
        /// Form of the lines: text for people, json for programs.
        pub format: LogFormat = "log.format", "text";
    }
}

choice! {
    /// Severities; headscale's panic and fatal are errors here.
    pub enum LogLevel {
        /// Every packet.
        Trace = "trace",
        /// Every request.
        Debug = "debug",
        /// What operators want to have seen.
        Info = "info",
        /// Something is degraded.
        Warn = "warn" | "warning",
        /// Someone should look.
        Error = "error" | "fatal" | "panic",
    }
}

choice! {
    /// Forms of log lines.
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}
