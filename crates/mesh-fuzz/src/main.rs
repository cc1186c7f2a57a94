//! The targets under libFuzzer: `MESH_FUZZ_TARGET` names the one to run, arguments are libFuzzer's.
#![no_main]

use std::env;
use std::process::exit;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mesh_fuzz::Target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = env::var_os("MESH_FUZZ_TARGET").unwrap_or_default();
    let name = name.to_string_lossy();
    mesh_fuzz::target(&name).unwrap_or_else(|| {
        eprintln!("MESH_FUZZ_TARGET={name:?} names no target");
        exit(2)
    })
});

fuzz_target!(|input: &[u8]| (TARGET.run)(input));
