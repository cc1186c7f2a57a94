//! What `up` is told of a node, and remembers.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, bail};
use clap::Args;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::state_dir::StateDir;

/// Longest name of a network interface.
const INTERFACE_BYTES_MAX: usize = 15;

/// What stands in the place of an interface's name for none.
const NO_INTERFACE: &str = "false";

/// The settings of a node; what is not given stays as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// The control server
    #[arg(long, value_name = "URL", env = "TS_CONTROL_URL")]
    pub(crate) login_server: Option<String>,
    /// The name to ask for [default: the machine's]
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Tags to ask for, each with `tag:`
    #[arg(long, value_name = "TAG,...", value_delimiter = ',', value_parser = parse_tag)]
    pub(crate) advertise_tags: Option<Vec<String>>,
    /// Whether peers may open nothing to this machine
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true, hide_possible_values = true)]
    pub(crate) shields_up: Option<bool>,
    /// Subnets to route for others
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',', value_parser = parse_route)]
    pub(crate) advertise_routes: Option<Vec<IpNet>>,
    /// Whether to use the subnets that peers route
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true, hide_possible_values = true)]
    pub(crate) accept_routes: Option<bool>,
    /// The address of the peer through which everything outside of the tailnet goes
    #[arg(long, value_name = "IP")]
    pub(crate) exit_node: Option<IpAddr>,
    /// Make a network interface, through which all programs of this machine are in the tailnet; `--tun=false` takes that
    /// back [default name: meshnode0]
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "meshnode0", require_equals = true, value_parser = parse_interface)]
    pub(crate) tun: Option<String>,
    /// Whether the control server forgets the node soon after it goes away
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true, hide_possible_values = true)]
    pub(crate) ephemeral: Option<bool>,
    /// UDP port for peers; 0 takes a free one. The gateway of this machine is asked to lead a public port to it (NAT-PMP, PCP),
    /// unless `TS_DISABLE_PORTMAPPER=1` [default: 0]
    #[arg(long)]
    pub(crate) port: Option<u16>,
}

impl Settings {
    /// Those that were remembered; none if `up` was never called.
    pub(crate) fn load(state_dir: &StateDir) -> anyhow::Result<Self> {
        let path = state_dir.settings();
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            read => serde_json::from_slice(&read?).map_err(anyhow::Error::from),
        }
        .with_context(|| format!("cannot read {}: remove it, or mend it", path.display()))
    }

    /// Remembers them.
    pub(crate) fn save(&self, state_dir: &StateDir) -> anyhow::Result<()> {
        state_dir.make()?;
        let path = state_dir.settings();
        let new = path.with_extension("json.new");
        let write = || {
            let options = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new);
            options?.write_all(&serde_json::to_vec_pretty(self)?)?;
            fs::rename(&new, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// The name of the network interface, if there is to be one.
    pub(crate) fn interface(&self) -> Option<&str> {
        self.tun.as_deref().filter(|name| *name != NO_INTERFACE)
    }

    /// Refuses settings that do not go together.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.interface().is_some() && self.exit_node.is_some() {
            bail!(
                "--tun and --exit-node do not go together: the node's own packets would go to the exit node, too; \
                 leave one of them out, for good by --reset"
            );
        }
        Ok(())
    }

    /// These, with what is not given taken from `remembered`.
    pub(crate) fn or(self, remembered: Self) -> Self {
        Self {
            login_server: self.login_server.or(remembered.login_server),
            hostname: self.hostname.or(remembered.hostname),
            shields_up: self.shields_up.or(remembered.shields_up),
            advertise_tags: self.advertise_tags.or(remembered.advertise_tags),
            advertise_routes: self.advertise_routes.or(remembered.advertise_routes),
            accept_routes: self.accept_routes.or(remembered.accept_routes),
            exit_node: self.exit_node.or(remembered.exit_node),
            tun: self.tun.or(remembered.tun),
            ephemeral: self.ephemeral.or(remembered.ephemeral),
            port: self.port.or(remembered.port),
        }
    }
}

/// A name that Linux takes.
fn parse_interface(name: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = (1..=INTERFACE_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain);
    if is_name && ![".", ".."].contains(&name) {
        Ok(name.to_owned())
    } else {
        Err(format!(
            "an interface's name is up to {INTERFACE_BYTES_MAX} letters, digits, `.`, `_` and `-`"
        ))
    }
}

fn parse_tag(text: &str) -> Result<String, String> {
    if text.strip_prefix("tag:").is_some_and(|name| !name.is_empty()) {
        Ok(text.to_owned())
    } else {
        Err(format!("a tag looks like `tag:{}`", text.trim_start_matches("tag:")))
    }
}

fn parse_route(text: &str) -> Result<IpNet, String> {
    let route: IpNet = text.parse().map_err(|_| "a subnet looks like `10.0.0.0/8`".to_owned())?;
    if route == route.trunc() {
        Ok(route)
    } else {
        Err(format!("it has bits beyond its length: did you mean `{}`?", route.trunc()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_stays_as_it_was() {
        let first = Settings {
            login_server: Some("http://one".to_owned()),
            port: Some(1),
            ..Settings::default()
        };
        let then = Settings { port: Some(2), ephemeral: Some(true), ..Settings::default() };
        let both = Settings {
            login_server: Some("http://one".to_owned()),
            port: Some(2),
            ephemeral: Some(true),
            ..Settings::default()
        };
        assert_eq!(then.or(first), both);
    }

    #[test]
    fn an_interface_does_not_go_with_an_exit_node_and_can_be_taken_back() {
        let tun = |name: &str| Settings { tun: Some(name.to_owned()), ..Settings::default() };
        let exit = Settings { exit_node: Some([100, 64, 0, 9].into()), ..Settings::default() };
        let error = exit.clone().or(tun("mesh0")).check().unwrap_err();
        assert!(error.to_string().contains("--exit-node"), "{error}");
        assert!(exit.or(tun("false")).check().is_ok());
        assert_eq!(tun("false").or(tun("mesh0")).interface(), None);
        assert_eq!(Settings::default().or(tun("mesh0")).interface(), Some("mesh0"));
    }

    #[test]
    fn settings_are_remembered_and_damaged_ones_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = StateDir::choose(Some(directory.path().join("new"))).unwrap();
        assert_eq!(Settings::load(&state_dir).unwrap(), Settings::default());
        let settings = Settings {
            login_server: Some("http://one".to_owned()),
            advertise_routes: Some(vec!["10.0.0.0/8".parse().unwrap()]),
            ..Settings::default()
        };
        settings.save(&state_dir).unwrap();
        assert_eq!(Settings::load(&state_dir).unwrap(), settings);
        fs::write(state_dir.settings(), "{").unwrap();
        let error = Settings::load(&state_dir).unwrap_err();
        assert!(error.to_string().contains("settings.json"), "{error}");
    }
}
