//! `cli`: the command line as a client of a remote server.

use std::path::Path;
use std::time::Duration;

use crate::finding::Report;
use crate::key::section;
use crate::types::{HttpUrl, Secret};
use crate::value::Scalar;

section! {
    /// The command line as a client of a remote server.
    pub struct Cli {
        /// Address of the server to administer, a URL, or `host:port` for https. Unset: the server
        /// behind `unix_socket`.
        pub address: Option<ServerAddress> = "cli.address", "\"\"";
        /// API key for that server; better given as `MESHCONTROL_CLI_API_KEY`.
        pub api_key: Option<Secret> = "cli.api_key", "\"\"";
        /// How long a command waits for the server, a duration.
        pub timeout: Duration = "cli.timeout", "5s";
        /// Whether the certificate of that server is not verified.
        pub insecure: bool = "cli.insecure", "false";
    }
}

/// A server to administer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress(HttpUrl);

impl ServerAddress {
    /// Its URL, with `https` if no scheme was given.
    pub fn url(&self) -> &HttpUrl {
        &self.0
    }
}

impl Scalar for ServerAddress {
    const SHAPE: &'static str = "a URL such as https://mesh.example.com, or host:port";

    fn from_text(text: &str, base: &Path) -> Option<Self> {
        let url = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        HttpUrl::from_text(&url, base).map(Self)
    }
}

impl Cli {
    pub(crate) fn check(&self, report: &mut Report) {
        report.refuse_zero("cli.timeout", self.timeout);
    }
}
