//! The directory of one node: its keys, its settings, its log and the socket of its daemon.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use etcetera::BaseStrategy as _;
use tokio::net::UnixListener;

/// Where a daemon of root keeps its state.
const SYSTEM_DIR: &str = "/var/lib/meshnode";

/// One node's directory. Who has none other gets the default one.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    /// The directory that was asked for, else the default one of the user.
    pub(crate) fn choose(asked: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(asked) = asked {
            return Ok(Self(std::path::absolute(asked)?));
        }
        if rustix::process::geteuid().is_root() {
            return Ok(Self(PathBuf::from(SYSTEM_DIR)));
        }
        let strategy = etcetera::base_strategy::choose_native_strategy()
            .context("there is no home directory: choose a directory by --state-dir")?;
        Ok(Self(strategy.data_dir().join("meshnode")))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The socket of the local API.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("meshnode.sock")
    }

    /// The log of a daemon in the background.
    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("meshnode.log")
    }

    /// What `up` was told.
    pub(crate) fn settings(&self) -> PathBuf {
        self.0.join("settings.json")
    }

    /// Makes the directory, for its owner alone, if it is missing.
    pub(crate) fn make(&self) -> anyhow::Result<()> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.with_context(|| format!("cannot make the state directory {}", self.0.display()))
    }

    /// Listens on the socket. Only whoever holds the lock of the node's keys may call this, for a socket that is left over
    /// is replaced.
    pub(crate) fn listen(&self) -> anyhow::Result<UnixListener> {
        let socket = self.socket();
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        UnixListener::bind(&socket).with_context(|| {
            format!(
                "cannot listen on {}: choose another --state-dir, or a shorter one",
                socket.display()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_asked_for_does_not_depend_on_where_one_is_later() {
        let chosen = StateDir::choose(Some(PathBuf::from("here"))).unwrap();
        assert!(chosen.socket().is_absolute());
        assert!(chosen.socket().ends_with("here/meshnode.sock"));
    }

    #[tokio::test]
    async fn a_socket_that_is_left_over_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = StateDir(directory.path().join("new"));
        state_dir.make().unwrap();
        drop(state_dir.listen().unwrap());
        assert!(state_dir.socket().exists());
        state_dir.listen().unwrap();
    }

    #[tokio::test]
    async fn a_directory_too_deep_for_a_socket_is_told_with_the_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = StateDir(directory.path().join("x".repeat(120)));
        state_dir.make().unwrap();
        let error = state_dir.listen().unwrap_err();
        assert!(error.to_string().contains("--state-dir"), "{error}");
    }
}
