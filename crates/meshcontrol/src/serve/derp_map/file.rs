//! A DERP map in a file of the operator's.

use std::path::{Path, PathBuf};

use anyhow::Context;
use mesh_server::derp_map::{DerpSource, MAP_BYTES_MAX};
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

/// What a look at a file finds: its text, or why there is none.
type Found = Result<Vec<u8>, String>;

/// A file that is followed.
#[derive(Debug)]
pub(super) struct MapFile {
    path: PathBuf,
    /// What it last said that made sense.
    source: DerpSource,
    /// When it last said so.
    read_at: Instant,
    /// What was last looked into, whatever came of it.
    taken: Found,
    /// What the last look found.
    seen: Found,
    is_broken: bool,
}

impl MapFile {
    /// Reads a file for the first time, when it must make sense.
    pub(super) async fn read(path: PathBuf) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = read(&path).await.map_err(anyhow::Error::msg);
        let text = text.with_context(|| format!("cannot read the DERP map {shown}"))?;
        let source = DerpSource::parse_sound(&text);
        let source = source.with_context(|| format!("the DERP map {shown} cannot be used"))?;
        let (seen, taken) = (Ok(text.clone()), Ok(text));
        Ok(Self { path, source, read_at: Instant::now(), taken, seen, is_broken: false })
    }

    pub(super) fn source(&self) -> &DerpSource {
        &self.source
    }

    pub(super) fn read_at(&self) -> Instant {
        self.read_at
    }

    /// Takes in what two looks have found the same: what is just being written is not whole yet, and who replaces
    /// a file may remove it first. What makes no sense is told once and changes nothing. Says whether there was something
    /// to take in.
    pub(super) async fn look(&mut self) -> bool {
        let found = read(&self.path).await;
        let is_settled = found != self.taken && found == self.seen;
        if is_settled {
            self.take_in(&found);
            self.taken.clone_from(&found);
        }
        if found == self.taken && !self.is_broken {
            self.read_at = Instant::now();
        }
        self.seen = found;
        is_settled
    }

    fn take_in(&mut self, found: &Found) {
        let path = self.path.display();
        let text = found.as_ref().map_err(String::clone);
        let source =
            text.and_then(|text| DerpSource::parse_sound(text).map_err(|error| error.to_string()));
        self.is_broken = source.is_err();
        match source {
            Ok(source) => {
                tracing::info!(%path, "a DERP map was read again");
                self.source = source;
            }
            Err(problem) => {
                tracing::warn!(%path, "a DERP map cannot be used, what it said before stays: {problem}");
            }
        }
    }
}

/// Reads no more than a map may have, and a byte to tell.
async fn read(path: &Path) -> Found {
    let read = async {
        let mut text = Vec::new();
        let file = tokio::fs::File::open(path).await?;
        file.take(MAP_BYTES_MAX as u64 + 1).read_to_end(&mut text).await?;
        Ok(text)
    };
    read.await.map_err(|error: std::io::Error| error.to_string())
}
