//! The workspace as the checks see it: members with their layer, manifests, sources, dependency graph.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cargo_metadata::{Metadata, MetadataCommand, Package, PackageId};

use super::source::{self, Source};

/// The workspace.
#[derive(Debug)]
pub(super) struct House {
    /// The root of the checkout.
    pub(super) root: PathBuf,
    /// The text of the root manifest.
    pub(super) manifest: String,
    /// Its members, in the order of the root manifest.
    pub(super) members: Vec<Member>,
    /// The resolved dependency graph of all of them.
    pub(super) metadata: Metadata,
}

/// One crate of the workspace.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) layer: Layer,
    pub(super) id: PackageId,
    /// The file that opens the crate: `lib.rs`, or else `main.rs`; from the root of the checkout.
    pub(super) crate_root: PathBuf,
    /// Its `Cargo.toml`, from the root of the checkout.
    pub(super) manifest_path: PathBuf,
    pub(super) manifest: String,
    /// Every Rust file of the crate.
    pub(super) sources: Vec<Source>,
}

/// Where a crate stands in the house.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// 0 words, 1 cores, 2 shells, 3 app, 4 binaries.
    Numbered(u8),
    /// Tests and tools: nothing in the house stands on them.
    Aside,
}

/// One line of the member list in the root manifest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) path: String,
    pub(super) layer: Option<Layer>,
    pub(super) has_comment: bool,
    pub(super) line: usize,
}

impl House {
    /// Reads the workspace at `root`.
    ///
    /// # Errors
    /// When a file cannot be read, cargo cannot resolve the workspace, or `Cargo.lock` is stale.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
        let metadata = MetadataCommand::new()
            .current_dir(root)
            .other_options(vec!["--locked".to_owned()])
            .exec()
            .context("`cargo metadata --locked`")?;
        let members = list_members(&manifest)
            .iter()
            .map(|listed| Member::read(root, listed, &metadata))
            .collect::<Result<_>>()?;
        Ok(Self { root: root.to_path_buf(), manifest, members, metadata })
    }

    /// The member called `name`.
    pub(super) fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The members of the layers that may not touch the world: words and cores.
    pub(super) fn pure_members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| matches!(member.layer, Layer::Numbered(0 | 1)))
    }
}

impl Member {
    fn read(root: &Path, listed: &Listed, metadata: &Metadata) -> Result<Self> {
        let folder = root.join(&listed.path);
        let manifest_path = Path::new(&listed.path).join("Cargo.toml");
        let package = metadata
            .workspace_packages()
            .into_iter()
            .find(|package| package.manifest_path == root.join(&manifest_path))
            .with_context(|| format!("cargo does not know the member {}", listed.path))?;
        Ok(Self {
            name: package.name.to_string(),
            layer: listed.layer.unwrap_or(Layer::Aside),
            id: package.id.clone(),
            crate_root: crate_root(package).strip_prefix(root)?.to_path_buf(),
            manifest: fs::read_to_string(root.join(&manifest_path))?,
            manifest_path,
            sources: source::read_all(root, &folder)?,
        })
    }
}

fn crate_root(package: &Package) -> &Path {
    let library = package.targets.iter().find(|target| target.is_lib());
    let target = library.or_else(|| package.targets.iter().find(|target| target.is_bin()));
    target.map_or(Path::new(""), |target| target.src_path.as_std_path())
}

/// Reads the member list of the root manifest; a comment line that begins with a layer's number, or with
/// `aside`, opens that layer.
pub(super) fn list_members(manifest: &str) -> Vec<Listed> {
    let mut layer = None;
    let mut members = Vec::new();
    let lines = manifest.lines().enumerate().skip_while(|(_, line)| !line.starts_with("members"));
    for (index, line) in lines.skip(1).take_while(|(_, line)| !line.starts_with(']')) {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix('#') {
            layer = parse_layer(comment).or(layer);
        } else if let Some((path, rest)) = line.strip_prefix('"').and_then(|l| l.split_once('"')) {
            let has_comment = rest.contains("# ");
            members.push(Listed { path: path.to_owned(), layer, has_comment, line: index + 1 });
        }
    }
    members
}

fn parse_layer(comment: &str) -> Option<Layer> {
    match comment.split_whitespace().next()? {
        "aside" => Some(Layer::Aside),
        number => number.parse().ok().map(Layer::Numbered),
    }
}

#[cfg(test)]
mod tests;
