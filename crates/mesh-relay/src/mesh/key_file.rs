//! The file that the relays of a mesh have their common key in.

use std::io;
use std::path::{Path, PathBuf};

use mesh_keys::{MeshKey, ParseMeshKeyError};
use thiserror::Error;

/// Why there is no mesh key in a file.
#[derive(Debug, Error)]
pub enum MeshKeyFileError {
    /// The file cannot be read.
    #[error("cannot read mesh key file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is something else in it.
    #[error("mesh key file {path} is not 64 hexadecimal digits, as from `openssl rand -hex 32`")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ParseMeshKeyError,
    },
}

/// Reads the key of a mesh from a file of 64 hexadecimal digits; white space around them does not count.
///
/// `read` is how private files are read, which may say of one that it is not private.
pub fn read_mesh_key(
    path: &Path,
    read: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<MeshKey, MeshKeyFileError> {
    let text =
        read(path).map_err(|source| MeshKeyFileError::Read { path: path.to_owned(), source })?;
    text.parse().map_err(|source| MeshKeyFileError::Parse { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(path: &Path) -> Result<MeshKey, MeshKeyFileError> {
        read_mesh_key(path, |path| fs::read_to_string(path))
    }

    #[test]
    fn a_file_has_a_key_or_it_is_said_why_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mesh.key");
        let missing = read(&path).expect_err("no file");
        assert!(matches!(missing, MeshKeyFileError::Read { .. }), "{missing}");
        fs::write(&path, format!("{}\n", "a0".repeat(32))).expect("a file");
        assert_eq!(Some(read(&path).expect("a key")), MeshKey::from_bytes([0xa0; 32]));
        fs::write(&path, "0".repeat(64)).expect("a file");
        let zero = read(&path).expect_err("no key");
        let source = std::error::Error::source(&zero).expect("a cause");
        assert_eq!(source.to_string(), "mesh key is all zeros, which means that there is none");
    }
}
