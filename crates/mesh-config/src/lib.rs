//! YAML, environment and command line to a validated [`Config`].
//!
//! The program's whole configuration in plain types, for `meshcontrol serve` and for the admin
//! commands. Keys are headscale's wherever the meaning is the same, so that its `config.yaml`
//! works as it is; [`load`] tells of everything it does not take. Four layers are read, later
//! ones win: defaults, the file, `MESHCONTROL_*` variables, command-line flags.
//!
//! Each key is described once, by a field in [`sections`]: path, type, default and the sentence
//! for operators. Parsing, the check for unknown names and `config.example.yaml` follow from that.
//!
//! [`load`] touches neither files nor the environment; [`rim::gather`] does, and nothing else here.

mod key;
pub mod sections;

mod duration;
mod types;
mod value;

mod document;
mod known;
mod layers;
mod reader;
mod survey;

mod example;
mod finding;
mod load;
mod provenance;
pub mod rim;

pub use duration::{DurationError, parse_duration};
pub use example::example_yaml;
pub use finding::{Finding, Origin, Problems, report};
pub use layers::{Override, Source};
pub use load::{CONFIG_BYTES_MAX, load, parse};
pub use provenance::{Setting, settings};
pub use sections::Config;
pub use types::{DomainName, FileMode, Host, HttpUrl, Nameserver, Secret};

#[cfg(test)]
mod tests;
