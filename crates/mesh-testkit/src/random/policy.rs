//! Random policies, section by section, so that an edit may touch one of them.

use std::collections::BTreeMap;
use std::fmt;

use super::{ROUTES, Random, TAGS, user_tokens};

const GROUPS: &[&str] = &["group:eng", "group:none", "group:ops"];
const IPSETS: &[&str] = &["ipset:lab", "ipset:wide"];
const POSTURES: &[&str] = &["posture:fresh", "posture:mac", "posture:known"];

/// Names for addresses: of nodes, of subnets, wider and narrower than routes.
const HOSTS: &[(&str, &str)] = &[
    ("one", "100.64.0.1"),
    ("six", "fd7a:115c:a1e0::2"),
    ("net", "10.1.0.0/16"),
    ("wide", "10.0.0.0/8"),
    ("narrow", "10.1.2.128/25"),
    ("sub6", "fd00:1::/64"),
    ("pub", "8.8.8.8"),
];

/// Literals: the same, and parts of the tailnet.
const LITERALS: &[&str] = &[
    "100.64.0.2",
    "100.64.0.0/30",
    "fd7a:115c:a1e0::3",
    "fd7a:115c:a1e0::/126",
    "10.1.2.3",
    "10.1.2.0/23",
    "172.16.0.0/12",
    "fd00::/16",
    "8.8.0.0/16",
];

/// A policy by sections: each the JSON of its value, or of its entries.
#[derive(Debug, Clone)]
pub struct Sections {
    values: BTreeMap<&'static str, String>,
    rules: BTreeMap<&'static str, Vec<String>>,
}

impl fmt::Display for Sections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{{")?;
        for (name, value) in &self.values {
            writeln!(f, "  {name:?}: {value},")?;
        }
        for (name, entries) in &self.rules {
            writeln!(f, "  {name:?}: [ // {} entries", entries.len())?;
            for entry in entries {
                writeln!(f, "    {entry},")?;
            }
            writeln!(f, "  ],")?;
        }
        write!(f, "}}")
    }
}

impl Sections {
    /// A policy drawn at random.
    pub fn new(random: &mut Random) -> Self {
        let hosts = HOSTS.iter().map(|(name, address)| (*name, quoted(address)));
        let owners = TAGS.iter().map(|tag| (*tag, list(&["alice@example.com"])));
        let mut sections = Self { values: BTreeMap::new(), rules: BTreeMap::new() };
        sections.values.insert("hosts", object(hosts));
        sections.values.insert("tagOwners", object(owners));
        for name in ["groups", "ipsets", "postures", "autoApprovers", "flags"] {
            sections.draw_value(name, random);
        }
        for name in ["acls", "grants", "ssh", "nodeAttrs", "tests", "sshTests"] {
            sections.draw_rules(name, random);
        }
        sections
    }

    /// The same with one rule less each.
    pub(super) fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for (name, entries) in &self.rules {
            for skipped in 0..entries.len() {
                let mut fewer = self.clone();
                fewer.rules.get_mut(name).expect("invariant: its own name").remove(skipped);
                all.push(fewer);
            }
        }
        all
    }

    /// Changes one section: another value, or an entry that comes, goes or moves.
    pub fn edit(&mut self, random: &mut Random) {
        let values = ["groups", "ipsets", "postures", "flags", "autoApprovers"];
        let rules = ["acls", "grants", "ssh", "nodeAttrs"];
        match random.below(8) {
            0..3 => {
                let name = random.pick(&values);
                self.draw_value(name, random);
            }
            3 => {
                let name = random.pick(&rules);
                self.draw_rules(name, random);
            }
            _ => self.edit_rules(random),
        }
    }

    fn edit_rules(&mut self, random: &mut Random) {
        let names = ["acls", "grants", "ssh", "nodeAttrs"];
        let name = random.pick(&names);
        let fresh = rule(name, random);
        let entries = self.rules.entry(name).or_default();
        match (random.below(3), entries.len()) {
            (0, 1..) => drop(entries.remove(random.below(entries.len()))),
            (1, 2..) => entries.rotate_left(1),
            _ => entries.insert(random.below(entries.len() + 1), fresh),
        }
    }

    fn draw_value(&mut self, name: &'static str, random: &mut Random) {
        if name == "flags" {
            self.draw_flags(random);
            return;
        }
        let value = match name {
            "groups" => {
                let members = |random: &mut Random, group: &&str| {
                    if *group == "group:none" {
                        list::<&str>(&[])
                    } else {
                        list(&random.some(&user_tokens(), 4))
                    }
                };
                object(GROUPS.iter().map(|group| (*group, members(random, group))))
            }
            "ipsets" => ipsets(random),
            "postures" => postures(random),
            _ => approvers(random),
        };
        self.values.insert(name, value);
    }

    fn draw_flags(&mut self, random: &mut Random) {
        for name in ["randomizeClientPort", "disableIPv4", "OneCGNATRoute", "defaultSrcPosture"] {
            self.values.remove(name);
        }
        if random.chance(20) {
            self.values.insert("randomizeClientPort", "true".to_owned());
        }
        if random.chance(4) {
            self.values.insert("disableIPv4", "true".to_owned());
        }
        if random.chance(10) {
            let value = quoted(random.pick(&["mac-always", "mac-never", ""]));
            self.values.insert("OneCGNATRoute", value);
        }
        if random.chance(6) {
            self.values.insert("defaultSrcPosture", list(&random.some(POSTURES, 2)));
        }
    }

    fn draw_rules(&mut self, name: &'static str, random: &mut Random) {
        self.rules.remove(name);
        let (percent, most) = match name {
            "acls" => (60, 5),
            "grants" => (70, 6),
            "ssh" | "nodeAttrs" => (50, 3),
            _ => (40, 2),
        };
        if random.chance(percent) {
            let count = if random.chance(5) { 0 } else { 1 + random.below(most) };
            self.rules.insert(name, (0..count).map(|_| rule(name, random)).collect());
        }
    }
}

fn rule(name: &str, random: &mut Random) -> String {
    match name {
        "acls" => acl(random),
        "grants" => grant(random),
        "ssh" => ssh(random),
        "nodeAttrs" => node_attributes(random),
        "tests" => test(random),
        _ => ssh_test(random),
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn list<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

fn object<'a>(members: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let members: Vec<String> =
        members.into_iter().map(|(name, value)| format!("{name:?}: {value}")).collect();
    format!("{{{}}}", members.join(", "))
}

fn ipsets(random: &mut Random) -> String {
    let set = |random: &mut Random| {
        let mut steps: Vec<String> =
            random.some(LITERALS, 3).iter().map(|literal| format!("add {literal}")).collect();
        if random.chance(30) {
            steps.push("add net".to_owned());
        }
        if random.chance(50) {
            steps.push(format!("remove {}", random.pick(LITERALS)));
        }
        list(&steps)
    };
    let wide = random.pick(&[
        list(&["10.0.0.0/8", "100.64.0.0/10", "fd7a:115c:a1e0::/48"]),
        list(&["add autogroup:internet", "add 10.0.0.0/8"]),
        list(&["add ipset:lab", "add wide", "remove narrow"]),
    ]);
    object([("ipset:lab", set(random)), ("ipset:wide", wide)])
}

fn postures(random: &mut Random) -> String {
    let fresh = format!("node:tsVersion {} '1.78.3'", random.pick(&[">=", ">", "<", "<="]));
    let mac = random.pick(&[
        "node:os == 'macOS'",
        "node:os != 'linux'",
        "node:os IN ['macOS', 'windows']",
    ]);
    let known =
        random.pick(&["node:os IS SET", "node:osVersion NOT SET", "node:os NOT IN ['linux']"]);
    object([
        ("posture:fresh", list(&[fresh.as_str()])),
        ("posture:mac", list(&[mac, "node:osVersion IS SET"])),
        ("posture:known", list(&[known])),
    ])
}

fn approvers(random: &mut Random) -> String {
    let some = |random: &mut Random| {
        let mut all = user_tokens();
        all.extend(TAGS.iter().chain(GROUPS).map(|name| String::from(*name)));
        list(&random.some(&all, 4))
    };
    let mut keys = vec!["0.0.0.0/0", "::/0", "10.0.0.0/12"];
    keys.extend(ROUTES);
    let keys = random.some(&keys, 4);
    let routes = object(keys.into_iter().map(|key| (key, some(random))));
    object([("routes", routes), ("exitNode", some(random))])
}

/// One selector of users' or tags' nodes.
fn identity(random: &mut Random) -> String {
    match random.below(10) {
        0..3 => random.pick(&user_tokens()),
        3..5 => random.pick(GROUPS).to_owned(),
        5..8 => random.pick(TAGS).to_owned(),
        8 => "autogroup:member".to_owned(),
        _ => "autogroup:tagged".to_owned(),
    }
}

/// One selector of users' nodes.
fn person(random: &mut Random) -> String {
    match random.below(5) {
        0..2 => random.pick(&user_tokens()),
        2..4 => random.pick(GROUPS).to_owned(),
        _ => "autogroup:member".to_owned(),
    }
}

/// One selector of addresses.
fn literal(random: &mut Random) -> String {
    match random.below(5) {
        0..2 => random.pick(HOSTS).0.to_owned(),
        2 => random.pick(IPSETS).to_owned(),
        _ => random.pick(&[LITERALS, ROUTES].concat()).to_owned(),
    }
}

fn any_selector(random: &mut Random) -> String {
    match random.below(10) {
        0 => "*".to_owned(),
        1..4 => literal(random),
        _ => identity(random),
    }
}

fn several(random: &mut Random, one: fn(&mut Random) -> String) -> Vec<String> {
    let count = random.pick(&[1, 1, 1, 2, 2, 3]);
    (0..count).map(|_| one(random)).collect()
}

fn sources(random: &mut Random) -> Vec<String> {
    match random.below(40) {
        0 => Vec::new(),
        1..3 => vec!["autogroup:danger-all".to_owned(), identity(random)],
        3..8 => vec!["*".to_owned()],
        _ => several(random, any_selector),
    }
}

/// A list of ports.
fn ports(random: &mut Random) -> &'static str {
    random.pick(&["*", "*", "80", "443", "22,80", "1000-2000", "1-65535", "80-90,443"])
}

/// Members of a rule that it may have.
fn src_posture(random: &mut Random) -> String {
    if random.chance(10) {
        return format!(", \"srcPosture\": {}", list(&random.some(POSTURES, 2)));
    }
    String::new()
}

fn acl(random: &mut Random) -> String {
    let is_self = random.chance(20);
    let src = match random.below(4) {
        0 if is_self => vec!["*".to_owned()],
        _ if is_self => several(random, person),
        _ => sources(random),
    };
    let proto = random.pick(&["", "", "", "", "tcp", "udp", "icmp", "47", "sctp", "58"]);
    let has_ports = matches!(proto, "" | "tcp" | "udp" | "sctp");
    let mut dst = Vec::new();
    for index in 0..random.pick(&[1, 1, 2, 3]) {
        let selector = match random.below(12) {
            0 => "*".to_owned(),
            1 => "autogroup:internet".to_owned(),
            _ if is_self && (index == 0 || random.chance(20)) => "autogroup:self".to_owned(),
            _ => any_selector(random),
        };
        dst.push(format!("{selector}:{}", if has_ports { ports(random) } else { "*" }));
    }
    let proto = if proto.is_empty() { String::new() } else { format!(", \"proto\": {proto:?}") };
    let posture = src_posture(random);
    format!(
        r#"{{"action": "accept", "src": {}, "dst": {}{proto}{posture}}}"#,
        list(&src),
        list(&dst)
    )
}

/// The `app` member of a grant, with capabilities that have companions among them.
fn app(random: &mut Random) -> String {
    let names = [
        "example.com/cap/a",
        "example.com/cap/b",
        "tailscale.com/cap/drive",
        "tailscale.com/cap/relay",
    ];
    let names = random.some(&names, 2);
    let values = ["[]", "[{}]", r#"[{"role": "reader"}, 7]"#];
    object(names.into_iter().map(|name| (name, random.pick(&values).to_owned())))
}

fn grant(random: &mut Random) -> String {
    if random.chance(25) {
        return via_grant(random);
    }
    let is_self = random.chance(15);
    let src = if is_self { several(random, person) } else { sources(random) };
    let mut dst = several(random, any_selector);
    if is_self {
        dst.push("autogroup:self".to_owned());
        dst.rotate_left(random.below(2));
    } else if random.chance(8) {
        dst.push(random.pick(&["user:*@example.com", "user:*@example.org"]).to_owned());
    }
    let mut members = Vec::new();
    let kind = random.below(10);
    if kind < 8 {
        members.push(format!("\"ip\": {}", ip(random)));
    }
    if kind < 8 && random.chance(15) && !is_self {
        dst.push("autogroup:internet".to_owned());
    } else if kind > 5 {
        members.push(format!("\"app\": {}", app(random)));
    }
    let posture = src_posture(random);
    format!(r#"{{"src": {}, "dst": {}, {}{posture}}}"#, list(&src), list(&dst), members.join(", "))
}

fn ip(random: &mut Random) -> String {
    let entries = ["*", "80", "443", "tcp:22,80", "udp:53", "icmp:*", "tcp:1000-2000", "47:*"];
    list(&random.some(&entries, 2))
}

fn via_grant(random: &mut Random) -> String {
    let src = sources(random);
    let tags = ["tag:router", "tag:router", "tag:exit", "tag:lab"];
    let via = random.some(&tags, 2);
    let is_internet = random.chance(25);
    let mut dst =
        if is_internet { vec!["autogroup:internet".to_owned()] } else { several(random, literal) };
    if random.chance(10) {
        dst.push(any_selector(random));
    }
    let members = if !is_internet && random.chance(15) {
        format!("\"app\": {}", app(random))
    } else {
        format!("\"ip\": {}", ip(random))
    };
    let posture = src_posture(random);
    format!(
        r#"{{"src": {}, "dst": {}, "via": {}, {members}{posture}}}"#,
        list(&src),
        list(&dst),
        list(&via)
    )
}

fn ssh(random: &mut Random) -> String {
    let machine = |random: &mut Random| {
        if random.chance(30) { "autogroup:tagged".to_owned() } else { random.pick(TAGS).to_owned() }
    };
    let mut dst = several(random, machine);
    let src = match random.below(4) {
        0 => {
            let user = random.pick(&user_tokens());
            dst.push(user.clone());
            vec![user]
        }
        1..3 => {
            dst.push(random.pick(&["autogroup:self", "autogroup:member"]).to_owned());
            dst.rotate_left(random.below(2));
            several(random, person)
        }
        _ => {
            let mut src = several(random, identity);
            if random.chance(20) {
                src.push("user:*@example.com".to_owned());
            }
            src
        }
    };
    let users = [
        "root",
        "autogroup:nonroot",
        "ubuntu",
        "alice",
        "localpart:*@example.com",
        "localpart:*@example.org",
    ];
    let users = list(&random.some(&users, 3));
    let action = random.pick(&[
        r#""accept""#,
        r#""accept""#,
        r#""check""#,
        r#""check", "checkPeriod": "20m""#,
        r#""check", "checkPeriod": "always""#,
    ]);
    let env = if random.chance(20) { r#", "acceptEnv": ["LANG", "GIT_*"]"# } else { "" };
    format!(
        r#"{{"action": {action}, "src": {}, "dst": {}, "users": {users}{env}}}"#,
        list(&src),
        list(&dst)
    )
}

fn node_attributes(random: &mut Random) -> String {
    let target = |random: &mut Random| match random.below(8) {
        0 => "autogroup:admin".to_owned(),
        1 => "autogroup:owner".to_owned(),
        _ => any_selector(random),
    };
    let target = several(random, target);
    let names = ["disable-ipv4", "funnel", "magicdns-aaaa", "suggest-exit-node", "nextdns:abc"];
    let attr = random.some(&names, 2);
    format!(r#"{{"target": {}, "attr": {}}}"#, list(&target), list(&attr))
}

/// One question each, so that the verdict over a section tells much.
fn test(random: &mut Random) -> String {
    let src = any_selector(random);
    let dst = match random.below(4) {
        0 => random.pick(&["one", "six", "pub", "ipset:lab"]).to_owned(),
        1 => random.pick(&["100.64.0.2", "10.1.2.3", "[fd7a:115c:a1e0::3]"]).to_owned(),
        _ => identity(random),
    };
    let dst = format!("{dst}:{}", random.pick(&["80", "443", "22", "1500"]));
    let proto = random.pick(&["", "", r#""proto": "tcp", "#, r#""proto": "udp", "#]);
    let verdict = random.pick(&["accept", "deny"]);
    format!(r#"{{"src": {src:?}, {proto}{verdict:?}: {}}}"#, list(&[dst]))
}

fn ssh_test(random: &mut Random) -> String {
    let src = if random.chance(50) { person(random) } else { identity(random) };
    let dst = match random.below(5) {
        0 => "100.64.0.2".to_owned(),
        1 => random.pick(&user_tokens()),
        _ => identity(random),
    };
    let verdict = random.pick(&["accept", "deny", "check"]);
    let login = random.pick(&["root", "ubuntu", "alice", "postgres"]);
    format!(r#"{{"src": {src:?}, "dst": {}, {verdict:?}: {}}}"#, list(&[dst]), list(&[login]))
}
