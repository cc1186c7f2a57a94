//! Whole configurations: what they give, and what is told about them.

mod relay;

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use crate::key::Section as _;
use crate::known::{IGNORED, REMOVED};
use crate::layers::variable;
use crate::sections::{Allocation, DatabaseType, LogLevel, SslMode};
use crate::{
    CONFIG_BYTES_MAX, Config, Finding, Override, Problems, Source, example_yaml, load, report,
    settings,
};

const DATA_DIR: &str = "/data";

/// A configuration of a file in `/etc/mesh` and variables, by their names without the prefix.
fn source(text: &str, variables: &[(&str, &str)]) -> Source {
    let environment = variables.iter();
    let environment =
        environment.map(|(name, value)| (format!("MESHCONTROL_{name}"), (*value).to_owned()));
    Source {
        file: Some((PathBuf::from("/etc/mesh/config.yaml"), text.to_owned())),
        environment: environment.collect(),
        overrides: Vec::new(),
        data_dir: PathBuf::from(DATA_DIR),
    }
}

/// The configuration that must come out without a word.
fn accepted(text: &str, variables: &[(&str, &str)]) -> Config {
    let (config, warnings) = load(&source(text, variables)).expect("accepted");
    assert_eq!(warnings, [], "{}", report(&[], &warnings));
    config
}

/// Everything that is told about a file and variables.
fn told(text: &str, variables: &[(&str, &str)]) -> String {
    match load(&source(text, variables)) {
        Ok((_, warnings)) => report(&[], &warnings),
        Err(problems) => problems.to_string(),
    }
}

/// What is told begins with the one line that is expected.
fn check_told(text: &str, expected: &str) {
    let told = told(text, &[]);
    assert_eq!(told.lines().next(), Some(expected), "{told}");
    assert_eq!(told.lines().count(), 2, "{told}");
}

#[test]
fn nothing_at_all_is_a_working_configuration() {
    let config = Config::defaults(Path::new(DATA_DIR));
    assert_eq!(config.listen_addr, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)));
    assert_eq!(config.server_url, None);
    assert_eq!(config.database.engine, DatabaseType::Sqlite);
    assert_eq!(config.database.sqlite.path, Path::new("/data/db.sqlite"));
    assert_eq!(config.noise.private_key_path, Path::new("/data/noise_private.key"));
    assert_eq!(config.derp.server.private_key_path, Path::new("/data/derp_private.key"));
    assert_eq!(config.unix_socket, Path::new("/data/meshcontrol.sock"));
    assert_eq!(config.unix_socket_permission.bits(), 0o770);
    assert!(config.derp.server.enabled);
    assert_eq!(accepted("", &[]), config);
    assert_eq!(accepted("# nothing\n", &[]), config);
    assert_eq!(accepted("---\ndns:\nlog: {level: null}\nserver_url: ''\n", &[]), config);
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let mut source = source("listen_addr: 127.0.0.1:1\n", &[]);
    let listens = |source: &Source| load(source).expect("accepted").0.listen_addr.port();
    assert_eq!(listens(&source), 1);
    source.environment.push(("MESHCONTROL_LISTEN_ADDR".to_owned(), ":2".to_owned()));
    assert_eq!(listens(&source), 2);
    source.overrides.push(Override {
        flag: "--listen".to_owned(),
        path: "listen_addr".to_owned(),
        value: "localhost:3".to_owned(),
    });
    assert_eq!(listens(&source), 3);
}

#[test]
fn an_empty_variable_is_not_given() {
    assert_eq!(accepted("log: {level: debug}\n", &[("LOG_LEVEL", "")]).log.level, LogLevel::Debug);
}

#[test]
fn variables_set_lists_sections_and_records() {
    let config = accepted(
        "",
        &[
            ("TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.1"),
            ("DNS_NAMESERVERS_GLOBAL", "1.1.1.1,https://dns.example.com/q"),
            ("DNS_NAMESERVERS_SPLIT", "{Corp.Example.com.: [10.0.0.53], b.example: 10.0.0.54}"),
            ("DNS_EXTRA_RECORDS", "[{name: a.example.com, type: A, value: 100.64.0.3}]"),
            ("DERP_SERVER_ENABLED", "0"),
            ("PREFIXES_ALLOCATION", "random"),
            ("CONFIG", "/etc/mesh/config.yaml"),
            ("DATA_DIR", "/data"),
            ("TEST_POSTGRES_URL", "postgres://localhost"),
        ],
    );
    let nets: Vec<_> = config.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["10.0.0.0/8", "127.0.0.1/32"]);
    assert_eq!(config.dns.nameservers.global.len(), 2);
    let split: Vec<_> = config.dns.nameservers.split.keys().map(ToString::to_string).collect();
    assert_eq!(split, ["b.example", "corp.example.com"]);
    assert_eq!(config.dns.extra_records[0].name.as_str(), "a.example.com");
    assert!(!config.derp.server.enabled);
    assert_eq!(config.prefixes.allocation, Allocation::Random);
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let text = "noise: {private_key_path: keys/noise.key}\nderp: {paths: [/abs.yaml, derp.yaml]}\n";
    let config = accepted(text, &[("UNIX_SOCKET", "mesh.sock")]);
    assert_eq!(config.noise.private_key_path, Path::new("/etc/mesh/keys/noise.key"));
    assert_eq!(config.derp.paths, [Path::new("/abs.yaml"), Path::new("/etc/mesh/derp.yaml")]);
    assert_eq!(config.unix_socket, Path::new("/etc/mesh/mesh.sock"));
    let without_file = Source { file: None, ..source("", &[("UNIX_SOCKET", "mesh.sock")]) };
    assert_eq!(load(&without_file).expect("accepted").0.unix_socket, Path::new("mesh.sock"));
}

#[test]
fn values_are_taken_as_they_are_written() {
    let config = accepted(
        "unix_socket_permission: 0700\n\
         database:\n  type: postgres\n  \
           postgres: {host: /run/postgresql, name: on, user: 1e5, pass: 012e999, ssl: yes}\n\
         derp: {server: {region_name: 1.10}}\n",
        &[],
    );
    let postgres = &config.database.postgres;
    assert_eq!(config.unix_socket_permission.bits(), 0o700);
    assert_eq!(postgres.name.as_deref(), Some("on"));
    assert_eq!(postgres.user.as_deref(), Some("1e5"));
    assert_eq!(postgres.pass.as_ref().expect("given").expose(), "012e999");
    assert_eq!(postgres.ssl, SslMode::Require);
    assert_eq!(config.derp.server.region_name, "1.10");
}

#[test]
fn keys_that_headscale_names_otherwise_are_taken() {
    let config = accepted(
        "tuning: {register_cache_max_entries: 7, register_cache_expiration: 3m}\n\
         database: {type: sqlite3}\n",
        &[],
    );
    assert_eq!(config.limits.pending_logins_max, 7);
    assert_eq!(config.limits.pending_login_ttl, Duration::from_mins(3));
    let both = "tuning: {register_cache_max_entries: 7}\nlimits: {pending_logins_max: 8}\n";
    assert_eq!(accepted(both, &[]).limits.pending_logins_max, 8);
    let deprecated = "ephemeral_node_inactivity_timeout: 70s\n";
    let (config, warnings) = load(&source(deprecated, &[])).expect("accepted");
    assert_eq!(config.node.ephemeral.inactivity_timeout, Duration::from_secs(70));
    assert_eq!(warnings.len(), 1);
}

#[test]
fn a_policy_is_in_the_database_unless_a_file_is_named() {
    let check = |text, expected: Option<&str>| {
        let (config, _) = load(&source(text, &[])).expect("accepted");
        assert_eq!(config.policy.file(), expected.map(Path::new), "{text}");
    };
    check("", None);
    check("policy: {mode: database}", None);
    check("policy: {mode: file, path: ''}", None);
    check("policy: {mode: file, path: /etc/acl.hujson}", Some("/etc/acl.hujson"));
    check("policy: {path: acl.hujson}", Some("/etc/mesh/acl.hujson"));
    check_told(
        "policy: {mode: database, path: acl.hujson}",
        "warning: /etc/mesh/config.yaml:1:32: policy.path: is not read, for policy.mode is database",
    );
}

/// Has every key that headscale's own example sets, so that a file made of it is known to load.
const HEADSCALE: &str = include_str!("../testdata/headscale.yaml");

#[test]
fn a_configuration_of_headscale_loads_with_warnings_only() {
    let (config, warnings) = load(&source(HEADSCALE, &[])).expect("accepted");
    assert_eq!(config.noise.private_key_path, Path::new("/var/lib/headscale/noise_private.key"));
    assert!(!config.derp.server.enabled);
    insta::assert_snapshot!("headscale", report(&[], &warnings));
}

#[test]
fn all_problems_are_told_at_once() {
    let variables = [
        ("LIMITS_HEADER_TIMEOUT", "10"),
        ("DERP_SERVER_VERIFY_CLIENTS", "perhaps"),
        ("LISTEN_ADR", ":1"),
        ("OIDC_ISSUER", "https://idp.example.com"),
        ("DB_PATH", "/db"),
    ];
    insta::assert_snapshot!("bad", told(include_str!("../testdata/bad.yaml"), &variables));
}

#[test]
fn a_variable_with_structure_must_be_yaml() {
    let told = told("", &[("DNS_NAMESERVERS_SPLIT", "{a: [")]);
    let expected = "error: MESHCONTROL_DNS_NAMESERVERS_SPLIT: dns.nameservers.split: this is not \
                    valid YAML: unclosed bracket '['\n1 error, 0 warnings";
    assert_eq!(told, expected);
}

#[test]
fn removed_and_unsupported_keys_are_told_with_advice() {
    insta::assert_snapshot!("removed", told(include_str!("../testdata/removed.yaml"), &[]));
}

#[test]
fn unknown_keys_are_told_with_the_nearest_known_one() {
    insta::assert_snapshot!("unknown", told(include_str!("../testdata/unknown.yaml"), &[]));
}

#[test]
fn a_removed_key_beside_its_successor_is_only_warned_about() {
    check_told(
        "dns_config: {magic_dns: true}\ndns: {magic_dns: false}\n",
        "warning: /etc/mesh/config.yaml:1:14: dns_config.magic_dns: has been removed; \
         use dns.magic_dns instead",
    );
}

#[test]
fn what_several_keys_say_together_is_checked() {
    for (text, expected) in [
        (
            "server_url: https://mesh.corp.example\ndns: {base_domain: corp.example}\n",
            "error: /etc/mesh/config.yaml:1:13: server_url: the host mesh.corp.example lies in \
             dns.base_domain corp.example, where clients could not reach it; choose another name \
             for one of them",
        ),
        (
            "server_url: https://mesh.example/x/\n",
            "error: /etc/mesh/config.yaml:1:13: server_url: must end after the host; \
             use https://mesh.example",
        ),
        (
            "tls_cert_path: a.pem\n",
            "error: /etc/mesh/config.yaml:1:16: tls_cert_path: is set without tls_key_path; set both",
        ),
        (
            "trusted_proxies: [0.0.0.0/0]\n",
            "error: /etc/mesh/config.yaml:1:18: trusted_proxies: 0.0.0.0/0 trusts everybody; \
             name the proxies only",
        ),
        (
            "prefixes: {v4: '', v6: ''}\n",
            "error: /etc/mesh/config.yaml:1:16: prefixes.v4: nodes need addresses; \
             set prefixes.v4 or prefixes.v6",
        ),
        (
            "prefixes: {v4: 10.0.0.0/8}\n",
            "warning: /etc/mesh/config.yaml:1:16: prefixes.v4: lies outside 100.64.0.0/10; clients \
             rely on that range and fail in odd ways without it",
        ),
        (
            "database: {type: postgres}\n",
            "error: /etc/mesh/config.yaml:1:18: database.type: postgres needs \
             database.postgres.url, or database.postgres.host, name and user",
        ),
        (
            "node: {ephemeral: {inactivity_timeout: 65s}}\n",
            "error: /etc/mesh/config.yaml:1:40: node.ephemeral.inactivity_timeout: must be longer \
             than 65s, for clients are heard of once a minute",
        ),
        (
            "dns: {override_local_dns: true}\n",
            "warning: /etc/mesh/config.yaml:1:27: dns.override_local_dns: has no effect without \
             dns.nameservers.global",
        ),
        (
            "dns: {base_domain: ''}\n",
            "error: /etc/mesh/config.yaml:1:20: dns.base_domain: must be set while dns.magic_dns \
             is on, which makes names of it",
        ),
        (
            "preauth_keys: {argon2: {memory_kib: 1}}\n",
            "error: /etc/mesh/config.yaml:1:37: preauth_keys.argon2.memory_kib: must be from 8 to \
             1048576",
        ),
        (
            "limits: {connections_max: 0}\n",
            "error: /etc/mesh/config.yaml:1:27: limits.connections_max: must be 1 or more",
        ),
        (
            "cli: {timeout: 0}\n",
            "error: /etc/mesh/config.yaml:1:16: cli.timeout: must be longer than 0",
        ),
    ] {
        check_told(text, expected);
    }
}

#[test]
fn postgres_is_given_by_url_or_by_its_parts_but_not_both() {
    let postgres =
        |keys: &str| told(&format!("database: {{type: postgres, postgres: {{{keys}}}}}"), &[]);
    assert_eq!(postgres("url: 'postgres://u:p@h/d'"), "0 errors, 0 warnings");
    assert_eq!(postgres("host: h, port: null, name: n, user: u"), "0 errors, 0 warnings");
    assert!(postgres("url: 'mysql://u:hush@h/d'").contains("must begin with postgres://"));
    assert!(postgres("url: 'postgres://h', host: h").contains("is set beside host"));
    assert!(postgres("host: h").ends_with("2 errors, 0 warnings"));
    assert!(!postgres("url: 'mysql://u:hush@h/d', pass: [hush]").contains("hush"));
}

#[test]
fn what_is_no_yaml_is_told_beside_the_faults_of_variables() {
    let told = told("a: [\nlisten_addr: x\n", &[("LISTEN_ADDR", "y")]);
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 3, "{told}");
    assert!(
        lines[0].starts_with("error: /etc/mesh/config.yaml:1:4: this is not valid YAML: "),
        "{told}"
    );
    assert!(
        lines[1].starts_with("error: MESHCONTROL_LISTEN_ADDR: listen_addr: \"y\" is not "),
        "{told}"
    );
    check_told(
        "log: {level: debug}\nlog: {level: info}\n",
        "error: /etc/mesh/config.yaml:2:1: this is not valid YAML: duplicate mapping key: log \
         not allowed here",
    );
    check_told(
        "- a\n",
        "error: /etc/mesh/config.yaml:1:1: the file must consist of keys and values",
    );
    check_told(
        &"#".repeat(CONFIG_BYTES_MAX + 1),
        "error: /etc/mesh/config.yaml: the file is longer than 1048576 bytes",
    );
}

#[test]
fn a_flag_of_no_key_is_refused() {
    let flag = Override { flag: "--x".to_owned(), path: "x".to_owned(), value: String::new() };
    let source = Source { overrides: vec![flag], ..source("", &[]) };
    let problems = load(&source).expect_err("refused");
    assert_eq!(problems.errors[0].to_string(), "--x: x: there is no such key");
}

#[test]
fn secrets_are_not_shown() {
    let text = "database: {type: postgres, postgres: {url: 'postgres://u:hush@h/d', pass: hush}}\n\
                cli: {api_key: hush}\n";
    let source = source(text, &[("CLI_API_KEY", "hush")]);
    let config = load(&source).expect("accepted").0;
    assert_eq!(config.cli.api_key.as_ref().expect("given").expose(), "hush");
    assert!(!format!("{config:?} {source:?}").contains("hush"));
}

#[test]
fn each_setting_is_shown_with_who_gave_it_but_no_secret() {
    let text = "database: {type: postgres, postgres: {url: 'postgres://u:hush@h/d'}}\n\
                dns: {nameservers: {split: {a.example: [10.0.0.53, 10.0.0.54]}}}\n";
    let mut source = source(text, &[("CLI_API_KEY", "hush"), ("LOG_LEVEL", "debug")]);
    let flag = "--listen".to_owned();
    source.overrides.push(Override {
        flag,
        path: "listen_addr".to_owned(),
        value: ":1".to_owned(),
    });
    let settings = settings(&source);
    assert_eq!(settings.len(), Config::keys().len());
    let shown = |path: &str| {
        let setting = settings.iter().find(|setting| setting.path == path).expect(path);
        format!("{} ({})", setting.value, setting.origin)
    };
    assert_eq!(shown("listen_addr"), ":1 (--listen)");
    assert_eq!(shown("log.level"), "debug (MESHCONTROL_LOG_LEVEL)");
    assert_eq!(shown("log.format"), "text (default)");
    assert_eq!(
        shown("dns.nameservers.split"),
        "{a.example: [10.0.0.53, 10.0.0.54]} (/etc/mesh/config.yaml:2:28)"
    );
    assert_eq!(shown("database.postgres.url"), "(hidden) (/etc/mesh/config.yaml:1:44)");
    assert_eq!(shown("database.postgres.pass"), " (default)");
    assert!(!format!("{settings:?}").contains("hush"));
}

#[test]
fn metrics_can_be_turned_off() {
    let default = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)));
    assert_eq!(accepted("", &[]).metrics_listen_addr, default);
    assert_eq!(accepted("metrics_listen_addr: ''\n", &[]).metrics_listen_addr, None);
}

#[test]
fn names_are_unique_and_sections_stand_together() {
    let keys = Config::keys();
    let names: Vec<_> = keys
        .iter()
        .flat_map(crate::key::Key::names)
        .chain(IGNORED.iter().map(|ignored| ignored.path))
        .collect();
    let variables: BTreeSet<_> = names.iter().map(|name| variable(name)).collect();
    assert_eq!(variables.len(), names.len());
    let removed: BTreeSet<_> = REMOVED.iter().map(|removed| removed.path).collect();
    assert_eq!(removed.len(), REMOVED.len());
    assert!(keys.iter().all(|key| !removed.contains(key.path)));
}

#[test]
fn every_key_can_be_given_by_its_variable() {
    let defaults = Config::defaults(Path::new(DATA_DIR));
    for key in Config::keys().into_iter().filter(|key| key.type_name != "PathBuf") {
        let value = match key.default {
            "\"\"" => continue,
            "[]" if key.type_name != "Vec<ExtraRecord>" => ",",
            value => value.trim_matches('"'),
        };
        let environment = vec![(variable(key.path), value.to_owned())];
        let source = Source { file: None, environment, ..source("", &[]) };
        assert_eq!(load(&source).expect(key.path).0, defaults, "{}", key.path);
    }
}

/// Writes the example anew when it is stale, so that the next run passes.
#[test]
fn the_example_file_is_the_one_made_of_the_keys() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config.example.yaml");
    let expected = example_yaml();
    if fs::read_to_string(&path).unwrap_or_default() != expected {
        fs::write(&path, &expected).expect("the checkout is writable");
        panic!("config.example.yaml was stale and is written anew; run the test again");
    }
}

#[test]
fn the_example_file_says_what_is_the_default() {
    let defaults = Config::defaults(Path::new(DATA_DIR));
    let (config, warnings) = load(&source(&example_yaml(), &[])).expect("accepted");
    assert_eq!(config, defaults);
    assert_eq!(warnings.len(), 1, "override_local_dns alone: {}", report(&[], &warnings));
}

/// With its directory as data directory, also the keys in comments say what is the default.
#[test]
fn the_example_file_has_every_key() {
    let keys = Config::keys();
    let is_key_line = |line: &str| {
        let name = line.split(':').next().unwrap_or_default();
        line.contains(':') && keys.iter().any(|key| key.path.rsplit('.').next() == Some(name))
    };
    let uncomment = |line: &str| match line.trim_start().strip_prefix("# ") {
        Some(rest) if is_key_line(rest) => line.replacen("# ", "", 1),
        _ => line.to_owned(),
    };
    let text: Vec<String> = example_yaml().lines().map(uncomment).collect();
    let source = Source { data_dir: PathBuf::from("/etc/mesh"), ..source(&text.join("\n"), &[]) };
    assert_eq!(load(&source).expect("accepted").0, Config::defaults(Path::new("/etc/mesh")));
    let document = crate::document::parse(&text.join("\n")).map_err(|error| error.message);
    let document = document.expect("the example is YAML");
    for key in keys {
        assert!(document.find(key.path).is_some(), "{}", key.path);
    }
}

#[test]
fn expansion_and_depth_are_bounded() {
    let level = |level: usize| {
        let below = format!("*a{}, ", level - 1).repeat(10);
        format!("a{level}: &a{level} [{below}]\n")
    };
    let bomb = format!("a0: &a0 [x]\n{}", (1..20).map(level).collect::<Vec<_>>().concat());
    for text in [bomb, "[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000)] {
        let problems = refused(&text);
        assert_eq!(problems.errors.len(), 1);
        assert!(problems.errors[0].message.len() < 300, "{}", problems.errors[0].message);
    }
    let deep: Vec<_> = (0..1_000).map(|depth| format!("{:depth$}a:\n", "")).collect();
    assert_eq!(refused(&deep.concat()).errors.len(), 1);
}

fn refused(text: &str) -> Problems {
    crate::parse(text).expect_err("refused")
}

fn is_told_well(finding: &Finding) -> bool {
    !finding.message.is_empty() && !finding.to_string().contains('\n')
}

/// Texts made of what configurations are made of, so that most get beyond the YAML.
fn yamlish() -> impl Strategy<Value = String> {
    let names: Vec<String> = Config::keys()
        .iter()
        .flat_map(crate::key::Key::names)
        .chain(IGNORED.iter().map(|ignored| ignored.path))
        .chain(REMOVED.iter().map(|removed| removed.path))
        .flat_map(|path| path.split('.').map(str::to_owned))
        .collect();
    let value = prop::sample::select(vec![
        "",
        "~",
        "''",
        "true",
        "0",
        "-1",
        "99999999999999999999",
        "1e999",
        ".nan",
        "30m",
        "1y1y",
        "[]",
        "{}",
        "[a, 1, {b: c}]",
        "{a: {b: c}}",
        "x",
        "::",
        ":1",
        "http://",
        "https://[::1]:99999/",
        "100.64.0.0/33",
        "é",
        "\"\\0\"",
        "&a b",
        "*a",
        "!!int x",
        "|\n   text",
        "postgres",
    ]);
    let line = (0_usize..4, prop::sample::select(names), value).prop_map(|(depth, name, value)| {
        format!("{:indent$}{name}: {value}\n", "", indent = 2 * depth)
    });
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,200}") {
        let _ = crate::parse(&text);
    }

    #[test]
    fn no_configuration_makes_it_panic(text in yamlish(), value in "\\PC{0,20}", pick in any::<prop::sample::Index>()) {
        let keys = Config::keys();
        let name = variable(pick.get(&keys).path);
        let source = Source { environment: vec![(name, value)], ..source(&text, &[]) };
        let findings = match load(&source) {
            Ok((_, warnings)) => warnings,
            Err(problems) => [problems.errors, problems.warnings].concat(),
        };
        for finding in findings {
            prop_assert!(is_told_well(&finding), "{finding}");
        }
    }
}
