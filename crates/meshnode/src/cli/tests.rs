use clap::{Command, CommandFactory as _, Parser as _};

use super::Cli;

/// The command itself and its verbs.
fn commands() -> Vec<Command> {
    let root = Cli::command();
    let verbs: Vec<Command> = root.get_subcommands().cloned().collect();
    [vec![root], verbs].concat()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_teaches_with_examples_that_work() {
    for command in commands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let examples: Vec<&str> =
            help.lines().filter_map(|line| line.strip_prefix("  meshnode")).collect();
        assert!(!examples.is_empty(), "`{}` has no example", command.get_name());
        for example in examples {
            let words = ["meshnode"].into_iter().chain(example.split_whitespace());
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("meshnode{example}: {error}");
            }
        }
    }
}

#[test]
fn every_command_and_argument_is_described() {
    for command in commands() {
        assert!(command.get_about().is_some(), "`{}`", command.get_name());
        for argument in command.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "`{}` {}",
                command.get_name(),
                argument.get_id()
            );
        }
    }
}

/// Source: tailscale `cmd/tailscale/cli`.
#[test]
fn what_tailscale_takes_is_understood() {
    for line in [
        "up --login-server=http://127.0.0.1:8080 --authkey=tskey-auth-x",
        "up --auth-key tskey-auth-x --hostname web --reset",
        "up --tun=tailnet0",
        "up --advertise-routes 10.0.0.0/8,fd00::/8 --advertise-tags tag:a,tag:b",
        "status --json",
        "ip -6",
        "ip -1",
        "ping -c 1 web",
        "whois --json 100.64.0.1",
        "nc web 22",
    ] {
        let words = std::iter::once("meshnode").chain(line.split(' '));
        let parsed = Cli::try_parse_from(words);
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for line in [
        "up --tun=",
        "up --tun=an/interface",
        "up --tun=longer-than-15-bytes",
        "up --advertise-tags web",
        "up --advertise-routes 10.0.0.1/8",
        "up --login-server",
        "ip -4 -6",
        "nc web",
        "nc web 0",
        "forward web:80",
        "forward web:80 80",
        "forward 80 web",
        "serve-socks5 --listen localhost",
        "status -o xml",
    ] {
        let words = std::iter::once("meshnode").chain(line.split(' '));
        assert!(Cli::try_parse_from(words).is_err(), "{line}");
    }
}
