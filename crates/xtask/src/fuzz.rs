//! `cargo xtask fuzz`: libFuzzer over the targets of `mesh-fuzz`, on stable Rust.
//!
//! The compiler's coverage pass is reached through its plain options; only sanitizers would need a nightly
//! compiler, and safe Rust has little use for those. What a run finds goes to `target/fuzz/corpus`, so the
//! committed corpus stays small; an input that fails is kept in `crates/mesh-fuzz/artifacts`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::command::{at_root, cargo, execute, find, output, root, target_dir};
use crate::phases::Phases;

/// Coverage as libFuzzer reads it, and checks that a release build leaves out.
const RUSTFLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// How long one input may take, in seconds: all parsers are linear and inputs are small.
const INPUT_SECONDS_MAX: u32 = 5;

/// The committed seeds, one folder per target.
const CORPUS: &str = "crates/mesh-fuzz/corpus";

/// Where an input that fails is kept.
const ARTIFACTS: &str = "crates/mesh-fuzz/artifacts";

/// The environment variable that tells the fuzz binary which target to run.
const TARGET_VARIABLE: &str = "MESH_FUZZ_TARGET";

/// What to fuzz, and for how long.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Seconds per target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only this target; all of them when absent
    target: Option<String>,
}

/// Builds the targets and runs each on its corpus.
///
/// # Errors
/// A missing C++ compiler, an unknown target, or an input that makes a target fail.
pub(crate) fn run(options: &Options, phases: &mut Phases) -> Result<()> {
    let mut targets = targets()?;
    if let Some(wanted) = &options.target {
        if !targets.contains(wanted) {
            bail!("no target {wanted:?}: there are {}", targets.join(", "));
        }
        targets.retain(|target| target == wanted);
    }
    let binary = phases.run("build the fuzz targets", build)?;
    for target in &targets {
        phases.run(&format!("fuzz {target}"), || fuzz(&binary, target, options.seconds))?;
    }
    Ok(())
}

/// The names of all targets: each has a folder of seeds, which a test of `mesh-fuzz` proves.
fn targets() -> Result<Vec<String>> {
    let mut names = fs::read_dir(root().join(CORPUS))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Builds the fuzz binary and returns where it is.
fn build() -> Result<PathBuf> {
    if find("c++").is_none() {
        bail!("no C++ compiler, which libFuzzer is built with: `apt-get install g++`");
    }
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc does not tell its host")?;
    let directory = target_dir()?.join("fuzz");
    // A named target keeps the flags away from build scripts and procedural macros.
    let mut command = cargo("build --package mesh-fuzz --features libfuzzer --release --locked");
    command.args(["--target", host, "--target-dir"]).arg(&directory).env("RUSTFLAGS", RUSTFLAGS);
    execute(&mut command)?;
    Ok(directory.join(host).join("release/mesh-fuzz"))
}

/// Runs one target; what libFuzzer says goes to a file, and from there the figures or the failure to us.
fn fuzz(binary: &Path, target: &str, seconds: u32) -> Result<()> {
    let directory = target_dir()?.join("fuzz");
    let found = directory.join("corpus").join(target);
    let artifacts = root().join(ARTIFACTS);
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&artifacts)?;
    let log = directory.join(format!("{target}.log"));
    let mut command = at_root(binary);
    command
        .env(TARGET_VARIABLE, target)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-artifact_prefix={}/{target}-", artifacts.display()))
        .arg("-print_final_stats=1")
        .arg(found)
        .arg(root().join(CORPUS).join(target))
        .stderr(File::create(&log)?);
    let outcome = execute(&mut command);
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let telling = if outcome.is_ok() { is_figure } else { is_failure };
    said.lines().filter(|line| telling(line)).for_each(|line| println!("{line}"));
    outcome.with_context(|| format!("see {}; the input is in {ARTIFACTS}", log.display()))
}

/// The lines worth reading after a run without a finding.
fn is_figure(line: &str) -> bool {
    line.starts_with("stat::") || line.contains("\tDONE")
}

/// The lines worth reading after a finding.
fn is_failure(line: &str) -> bool {
    !line.starts_with('#') && !line.starts_with("stat::") && !line.contains(" # Uses: ")
}
