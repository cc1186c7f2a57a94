//! A small disk that can be filled.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// How much is written at once while a disk is filled; the last is done byte by byte of this.
const FILL_BYTES: usize = 4096;

/// A file system in memory, mounted on a directory until it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    directory: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of `bytes` on a directory. Only root may, and not in every container.
    pub(crate) fn mount(directory: &Path, bytes: u64) -> Result<Self> {
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(directory)
            .output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "no disk can be mounted here: {}", told.trim());
        Ok(Self { directory: directory.to_owned() })
    }

    /// Takes all room that is left.
    pub fn fill(&self) -> Result<()> {
        let mut filler = File::options().create(true).append(true).open(self.filler())?;
        let zeros = [0; FILL_BYTES];
        loop {
            match filler.write(&zeros) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("filling a disk"),
            }
        }
    }

    /// Gives the room back.
    pub fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.directory.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, for somebody may still have a file open.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.directory).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.directory.display());
        }
    }
}
