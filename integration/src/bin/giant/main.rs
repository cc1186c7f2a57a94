//! `giant`: one real node inside a tailnet of many synthetic ones, while nodes come and go. `cargo xtask bench giant`
//! builds what it needs and calls it.
//!
//! What is measured is the server: how long it takes to start, its memory, a whole map, and what one node that joins
//! and one that leaves cost it in processor time. A client of our own judges what arrives; a stock client beside it
//! tells by its counters whether it could take every step incrementally. It is the server's half of Tailscale's
//! `tstest/largetailnet`.
#![expect(clippy::print_stdout, reason = "the table is the result")]

mod figures;
mod measure;
mod viewer;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use mesh_integration::{Company, Engine};

use crate::figures::Figures;
use crate::measure::measure;

/// How long one tailnet may take: filling it and a stock client's first map take most of it.
const TAILNET_MAX: Duration = Duration::from_mins(15);

/// Measures a server inside a giant tailnet.
#[derive(Debug, Parser)]
#[command(name = "giant")]
struct Arguments {
    /// Sizes of the tailnet, in synthetic nodes
    #[arg(long, value_delimiter = ',', default_value = "10000,50000,100000,250000")]
    nodes: Vec<u32>,
    /// On which engines
    #[arg(long, value_delimiter = ',', default_value = "sqlite")]
    database: Vec<Database>,
    /// How many times a node joins and another leaves
    #[arg(long, default_value_t = 200)]
    steps: u32,
    /// How many of these steps are watched by a stock client too; 0 leaves it out
    #[arg(long, default_value_t = 50)]
    stock_steps: u32,
}

/// An engine on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Database {
    Sqlite,
    Postgres,
}

impl From<Database> for Engine {
    fn from(database: Database) -> Self {
        match database {
            Database::Sqlite => Self::Sqlite,
            Database::Postgres => Self::Postgres,
        }
    }
}

fn main() -> Result<()> {
    let Arguments { nodes, database, steps, stock_steps } = Arguments::parse();
    println!("{}", Figures::HEAD);
    for database in database {
        for nodes in &nodes {
            let told = Mutex::new(None);
            mesh_integration::run_within(
                TAILNET_MAX,
                database.into(),
                Company::Welcome,
                async |lab| {
                    let figures = Box::pin(measure(lab, *nodes, steps, stock_steps)).await?;
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(figures);
                    Ok(())
                },
            );
            let figures = told.into_inner().unwrap_or_else(PoisonError::into_inner);
            println!("| {database:?} | {nodes} | {} |", figures.context("nothing was measured")?);
        }
    }
    Ok(())
}
