//! Files of the server's own: its data directory and private keys.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, bail};
use mesh_keys::{DerpPrivate, MachinePrivate, ParseKeyError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A kind of private key that is kept in a file.
pub(crate) trait KeyFile: FromStr<Err = ParseKeyError> {
    fn make() -> anyhow::Result<Self>;
    fn text(&self) -> String;
}

impl KeyFile for MachinePrivate {
    fn make() -> anyhow::Result<Self> {
        Ok(Self::generate()?)
    }

    fn text(&self) -> String {
        self.expose_text()
    }
}

impl KeyFile for DerpPrivate {
    fn make() -> anyhow::Result<Self> {
        Ok(Self::generate()?)
    }

    fn text(&self) -> String {
        self.expose_text()
    }
}

/// Lets us have as many files open as we may: each client is one, and the usual limit is a thousand.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// Makes the data directory, for us alone to enter.
pub(crate) fn make_data_dir(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| {
        format!("cannot make the data directory {}: choose another with --data-dir", path.display())
    })
}

/// Reads a private key, or makes it if there is no file. A file that holds no key is left as it is: a new key
/// would lock every client out.
pub(crate) fn private_key<K: KeyFile>(path: &Path) -> anyhow::Result<K> {
    let shown = path.display();
    match read_private(path) {
        Ok(text) => text
            .trim()
            .parse()
            .with_context(|| format!("{shown} holds no private key: restore it from a backup")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let key = K::make()?;
            write_private(path, &format!("{}\n", key.text()))?;
            tracing::info!(path = %shown, "a private key was made");
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {shown}")),
    }
}

/// Reads a file that should be ours alone; says so if it is not.
pub(crate) fn read_private(path: &Path) -> std::io::Result<String> {
    let text = fs::read_to_string(path)?;
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others may read this private file: run chmod 600 on it");
    }
    Ok(text)
}

/// Writes a file that only we may read, durably, and never over one that is there.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let shown = path.display();
    let Some(directory) = path.parent() else { bail!("{shown} is no file") };
    make_data_dir(directory)?;
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::File::open(directory)?.sync_all()
    };
    write().with_context(|| format!("cannot write {shown}"))
}
