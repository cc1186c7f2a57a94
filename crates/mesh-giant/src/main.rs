//! `meshgiant`: fills an empty database with a synthetic tailnet, for measuring and testing a server inside a giant.
//!
//! The nodes come in by the same commands that a server would carry out for real ones, so that names, addresses and
//! rows are what a server would have made of them. The same seed and numbers make the same tailnet.

mod population;
mod preload;
mod progress;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use mesh_db::{Options, PostgresOptions};

use crate::population::Population;

/// Fills an empty database with a synthetic tailnet.
#[derive(Debug, Parser)]
#[command(name = "meshgiant")]
struct Arguments {
    /// A postgres:// URL, or the path of an `SQLite` file, which is made if it is missing
    database: String,
    /// How many nodes
    #[arg(long, default_value_t = 10_000)]
    nodes: u32,
    /// How many users own those that are not tagged
    #[arg(long, default_value_t = 20)]
    users: usize,
    /// How many tags there are
    #[arg(long, default_value_t = 20)]
    tags: usize,
    /// How many in a hundred nodes have a tag instead of a user
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u8).range(0..=100))]
    tagged_percent: u8,
    /// What makes one tailnet differ from another of the same size
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Arguments { users, tags, tagged_percent, seed, .. } = arguments;
    let population = Population::new(seed, users, tags, tagged_percent.into());
    preload::run(&database(&arguments.database), population, arguments.nodes).await
}

/// Reads which database is meant.
fn database(text: &str) -> Options {
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Options::Postgres(PostgresOptions::Url(text.to_owned()));
    }
    Options::Sqlite {
        path: PathBuf::from(text),
        write_ahead_log: true,
        wal_autocheckpoint: preload::WAL_AUTOCHECKPOINT,
    }
}
