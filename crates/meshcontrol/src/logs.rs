//! Logs: to stderr, as text for people or as JSON for programs.

use std::io::IsTerminal;

use mesh_config::sections::{Log, LogFormat, LogLevel};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging as configured.
pub(crate) fn start(settings: &Log) {
    let level = level(settings.level);
    // Libraries log each of their steps below INFO.
    let levels = Targets::new()
        .with_target("mesh", level)
        // It warns of whatever a stranger does to it.
        .with_target("h2", level.min(LevelFilter::ERROR))
        .with_default(level.min(LevelFilter::INFO));
    let output = fmt::layer().with_writer(std::io::stderr);
    let started = match settings.format {
        LogFormat::Text => {
            let output = output.with_ansi(std::io::stderr().is_terminal()).with_target(false);
            tracing_subscriber::registry().with(levels).with(output).try_init()
        }
        LogFormat::Json => {
            let output = output.json().flatten_event(true);
            tracing_subscriber::registry().with(levels).with(output).try_init()
        }
    };
    // Somebody started logging before us, and then it is theirs.
    drop(started);
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    }
}
