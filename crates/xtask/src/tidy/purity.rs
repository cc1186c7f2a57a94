//! Words and cores read no clock, open no socket, touch no file, no environment and no randomness.

use super::Problem;
use super::house::House;

/// What production code of a core does not say, and what it does instead.
const FORBIDDEN: [(&str, &str); 13] = [
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
    (RANDOMNESS, VALUES),
];

/// The operating system's randomness, and the one crate that asks for it: a key makes itself, since one from
/// a passed generator is a mistake away from a key that somebody else can make.
const RANDOMNESS: &str = "getrandom::";
const RANDOMNESS_HOME: &str = "mesh-keys";

const PASS_NOW: &str = "take `now` as a parameter";
const BYTES: &str = "take and return bytes; sockets belong to a shell";
const VALUES: &str = "take the value as a parameter; the world belongs to a shell";

/// Searches the production code of all words and cores.
pub(super) fn check(house: &House) -> Vec<Problem> {
    let mut problems = Vec::new();
    for member in house.pure_members() {
        let may_ask = member.name == RANDOMNESS_HOME;
        let forbidden = FORBIDDEN.iter().filter(|(word, _)| !may_ask || *word != RANDOMNESS);
        for (word, instead) in forbidden {
            for source in &member.sources {
                problems.extend(source.lines_with(word).map(|line| {
                    Problem::new(&source.path, line, format!("`{word}` in a core: {instead}"))
                }));
            }
        }
    }
    problems
}
