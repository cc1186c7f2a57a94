//! Words and cores read no clock, open no socket, touch no file and no environment.

use super::Problem;
use super::house::House;

/// What production code of a core does not say, and what it does instead.
const FORBIDDEN: [(&str, &str); 12] = [
    ("SystemTime::now", PASS_NOW),
    ("Instant::now", PASS_NOW),
    ("Timestamp::now", PASS_NOW),
    ("Zoned::now", PASS_NOW),
    ("TcpStream", BYTES),
    ("TcpListener", BYTES),
    ("UdpSocket", BYTES),
    ("UnixStream", BYTES),
    ("fs::", VALUES),
    ("env::", VALUES),
    ("thread::", VALUES),
    ("process::", VALUES),
];

const PASS_NOW: &str = "take `now` as a parameter";
const BYTES: &str = "take and return bytes; sockets belong to a shell";
const VALUES: &str = "take the value as a parameter; the world belongs to a shell";

/// Searches the production code of all words and cores.
pub(super) fn check(house: &House) -> Vec<Problem> {
    let mut problems = Vec::new();
    for source in house.pure_members().flat_map(|member| &member.sources) {
        for (forbidden, instead) in FORBIDDEN {
            for line in source.lines_with(forbidden) {
                let what = format!("`{forbidden}` in a core: {instead}");
                problems.push(Problem::new(&source.path, line, what));
            }
        }
    }
    problems
}
