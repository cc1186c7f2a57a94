use clap::{Command, CommandFactory as _, Parser as _};

use super::Cli;

/// All commands below and including this one, by their full names.
fn walk(command: &Command, prefix: &str, visit: &mut impl FnMut(&str, &Command)) {
    let name = format!("{prefix}{}", command.get_name());
    visit(&name, command);
    for child in command.get_subcommands() {
        walk(child, &format!("{name} "), visit);
    }
}

/// The examples in a command's help, split as a shell would.
fn examples(command: &Command) -> Vec<Vec<String>> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let lines = help.lines().filter_map(|line| line.strip_prefix("  "));
    lines.map(|line| words(line.split(" > ").next().unwrap_or(line))).collect()
}

/// Splits at spaces outside of single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (index, piece) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.last_mut().unwrap().push_str(piece);
            continue;
        }
        for (index, word) in piece.split(' ').enumerate() {
            if index > 0 {
                words.push(String::new());
            }
            words.last_mut().unwrap().push_str(word);
        }
    }
    words
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_teaches_with_examples_that_work() {
    walk(&Cli::command(), "", &mut |name, command| {
        let examples = examples(command);
        assert!(!examples.is_empty(), "`{name}` has no example");
        for example in examples {
            assert_eq!(example[0], "meshcontrol", "`{name}`");
            let parsed = Cli::try_parse_from(&example);
            assert!(parsed.is_ok(), "`{name}`: {}", parsed.unwrap_err());
        }
    });
}

#[test]
fn every_command_and_argument_is_described() {
    walk(&Cli::command(), "", &mut |name, command| {
        assert!(command.get_about().is_some(), "`{name}`");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "`{name}` {}", argument.get_id());
        }
    });
}

/// What headscale's command line takes, ours takes.
///
/// Source: headscale `cmd/headscale/cli`.
#[test]
fn the_verbs_and_aliases_of_headscale_are_understood() {
    for line in [
        "-c config.yaml -o json users ls",
        "--config config.yaml --output  users list",
        "user new alice -d Alice -e a@example.com -p https://example.com/a.png",
        "users c alice",
        "users show -i 1 -n alice -e a@example.com",
        "users delete -i 1 --force",
        "users destroy -n alice",
        "users mv -i 1 -r bob",
        "users rename -n alice --new-name bob",
        "node ls -u alice",
        "nodes show -u alice",
        "nodes lsr -i 1",
        "nodes routes",
        "nodes register -u alice -k mcreq-x",
        "nodes logout -i 1",
        "nodes exp -i 1 -e 2030-01-01T00:00:00Z",
        "nodes e -i 1 -d",
        "nodes rename -i 1 web",
        "nodes del -i 1",
        "nodes tags -i 1 -t tag:a,tag:b -t tag:c",
        "nodes t -i 1 -t tag:a",
        "nodes approve-routes -i 1 -r 10.0.0.0/8,0.0.0.0/0",
        "preauthkey c -u 1 --reusable --ephemeral -e 24h --tags tag:a,tag:b",
        "authkey new -u 1",
        "pre ls",
        "preauthkeys revoke -i 1",
        "preauthkeys rm --id 1",
        "api c -e 90d",
        "apikey ls",
        "apikeys exp -p abc",
        "apikeys remove -i 1",
        "auth register -u alice --auth-id mcreq-x",
        "auth approve --auth-id mcreq-x",
        "auth reject --auth-id mcreq-x",
        "gen private-key -o yaml",
        "health -o json-line",
        "version",
        "configtest",
        "serve",
        "completion zsh",
    ] {
        let words = std::iter::once("meshcontrol").chain(line.split(' '));
        let parsed = Cli::try_parse_from(words);
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for line in [
        "users destroy",
        "users destroy -i 1 -n alice",
        "nodes delete",
        "nodes expire -i 1 -d -e 1h",
        "nodes tag -i 1",
        "preauthkeys create",
        "preauthkeys create -u alice -e soon",
        "apikeys expire",
        "apikeys expire -i 1 -p abc",
        "auth register --auth-id mcreq-x",
        "users list -o xml",
    ] {
        let words = std::iter::once("meshcontrol").chain(line.split(' '));
        assert!(Cli::try_parse_from(words).is_err(), "{line}");
    }
}
