//! The tests that a policy brings along: `tests` over packets and `sshTests` over logins.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::NodeId;
use roaring::RoaringBitmap;
use serde::Serialize;

use crate::asked::{Asked, parse_selector};
use crate::compiled::CompiledPolicy;
use crate::facts::NodeFacts;
use crate::parse::split_destination;
use crate::policy::{Policy, PortRange, Selector, SelectorId, SshTest, Test};
use crate::program::Kind;
use crate::ranges::IpRanges;
use crate::rules::{RulePlace, WrittenRule, opens};
use crate::view::SshAccess;

/// What came of the tests of a policy. Its text is for people and says all that failed; `{:#}` also what passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestReport {
    /// Every test: those of `tests`, then those of `sshTests`.
    pub tests: Vec<TestOutcome>,
}

/// What came of one test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestOutcome {
    /// Where it stands: `tests[2]`.
    pub test: String,
    /// Line of the entry in the text, from 1.
    pub line: u32,
    /// Everything that was looked at. Never empty: a test that asks nothing fails one check.
    pub checks: Vec<Check>,
}

/// One thing that a test looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Whether it is as expected.
    pub passed: bool,
    /// What should be: `alice@example.com -> tag:db:5432 should be denied`.
    pub expected: String,
    /// What is: `acls[4] (line 31) allows it`.
    pub happened: String,
}

impl TestReport {
    /// Whether every test passed; so it is if there are none.
    pub fn passed(&self) -> bool {
        self.tests.iter().all(TestOutcome::passed)
    }
}

impl TestOutcome {
    /// Whether everything is as expected.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }
}

/// `test(s) failed` is how the service says it.
impl fmt::Display for TestReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self.tests.iter().filter(|test| !test.passed()).count();
        match (failed, self.tests.len()) {
            (0, 0) => f.write_str("the policy has no tests")?,
            (0, all) => write!(f, "all {all} test(s) passed")?,
            (failed, all) => write!(f, "{failed} of {all} test(s) failed")?,
        }
        let shows_all = f.alternate();
        for test in &self.tests {
            for check in test.checks.iter().filter(|check| shows_all || !check.passed) {
                let TestOutcome { test, line, .. } = test;
                let Check { passed, expected, happened } = check;
                let but = if *passed { "and" } else { "but" };
                write!(f, "\n  {test} (line {line}): {expected}, {but} {happened}")?;
            }
        }
        Ok(())
    }
}

impl CompiledPolicy {
    /// Runs the policy's own tests against this tailnet.
    ///
    /// A destination counts as reached if rules let every address of the source in; rules by way of routers
    /// and those about users' own nodes do not count. A test of `deny` fails if any address of the source is let in.
    ///
    /// Source: POLICY 11 of the design, from captures.
    pub fn run_tests(&self) -> TestReport {
        self.memo.tests.get_or_init(|| self.make_report()).clone()
    }

    fn make_report(&self) -> TestReport {
        let policy = self.policy();
        if policy.tests.is_empty() && policy.ssh_tests.is_empty() {
            // Most policies have none, and what tests ask of is as much work as the policy itself.
            return TestReport { tests: Vec::new() };
        }
        let named = named_selectors(policy);
        let asked = Asked::new(self, named);
        let mut packets = PacketTests::new(&asked);
        let tests = policy.tests.iter().enumerate().map(|(index, test)| TestOutcome {
            test: format!("tests[{index}]"),
            line: test.line,
            checks: packets.run(test),
        });
        let mut tests: Vec<TestOutcome> = tests.collect();
        let mut logins = LoginTests { asked: &asked, access: HashMap::new() };
        tests.extend(policy.ssh_tests.iter().enumerate().map(|(index, test)| TestOutcome {
            test: format!("sshTests[{index}]"),
            line: test.line,
            checks: logins.run(test),
        }));
        TestReport { tests }
    }
}

/// Everything that tests name.
fn named_selectors(policy: &Policy) -> Vec<Selector> {
    let packet_tests = policy.tests.iter().flat_map(|test| {
        let destinations = test.accept.iter().chain(&test.deny);
        let hosts = destinations.filter_map(|text| Some(split_destination(text).ok()?.0));
        hosts.chain([Cow::Borrowed(&*test.src)])
    });
    let login_tests = policy.ssh_tests.iter().flat_map(|test| test.dst.iter().chain([&test.src]));
    let texts = packet_tests.chain(login_tests.map(|text| Cow::Borrowed(&**text)));
    texts.filter_map(|text| parse_selector(policy, &text).ok()).collect()
}

fn malformed(what: impl fmt::Display, why: impl fmt::Display) -> Check {
    Check {
        passed: false,
        expected: format!("{what} should be testable"),
        happened: why.to_string(),
    }
}

/// Who a test speaks for: every one of these must be let in.
type Sources = Vec<IpNet>;

/// The sources of a test: addresses of nodes one by one, else prefixes.
fn sources(asked: &Asked<'_>, text: &str) -> Result<(SelectorId, IpRanges, Sources), Check> {
    let refuse =
        |why: &str| malformed(format_args!("the source {text:?}"), format_args!("it {why}"));
    let selector = parse_selector(asked.compiled.policy(), text).map_err(|why| refuse(&why))?;
    if matches!(selector, Selector::SelfNodes | Selector::Internet) {
        return Err(refuse("cannot be a source"));
    }
    let id = asked.id(&selector);
    let (addresses, sources) = match asked.kind(id) {
        Kind::Identity => {
            let nodes = asked.nodes(id);
            let nodes = nodes.iter().filter_map(|id| asked.compiled.node(NodeId(id)));
            let single: Vec<IpAddr> = nodes.flat_map(NodeFacts::addresses).collect();
            let sources = single.iter().copied().map(IpNet::from).collect();
            (single.into_iter().collect(), sources)
        }
        Kind::Literal(_) | Kind::Everybody | Kind::SelfNodes | Kind::Internet => {
            let addresses = asked.source_addresses(id);
            let sources = addresses.prefixes().collect();
            (addresses, sources)
        }
    };
    if addresses.is_empty() {
        Err(refuse("has no addresses"))
    } else {
        Ok((id, addresses, sources))
    }
}

/// Runs `tests`, and remembers what it worked out of rules' selectors.
struct PacketTests<'a> {
    asked: &'a Asked<'a>,
    rules: Vec<WrittenRule<'a>>,
    /// By destination: rules, and the number of the destination in each.
    leading_to: BTreeMap<SelectorId, Vec<(usize, usize)>>,
    from: HashMap<SelectorId, IpRanges>,
    to: HashMap<SelectorId, IpRanges>,
}

/// What the source of a test is to rules: which of its parts each selector covers.
struct Reach {
    sources: Sources,
    covered: HashMap<SelectorId, RoaringBitmap>,
}

impl<'a> PacketTests<'a> {
    fn new(asked: &'a Asked<'a>) -> Self {
        let is_plain = |rule: &WrittenRule<'_>| rule.via().is_empty();
        let rules: Vec<WrittenRule<'_>> = asked.rules().into_iter().filter(is_plain).collect();
        let mut leading_to: BTreeMap<SelectorId, Vec<(usize, usize)>> = BTreeMap::new();
        for (index, rule) in rules.iter().enumerate() {
            for (number, selector) in rule.destinations().enumerate() {
                leading_to.entry(selector).or_default().push((index, number));
            }
        }
        Self { asked, rules, leading_to, from: HashMap::new(), to: HashMap::new() }
    }

    fn run(&mut self, test: &Test) -> Vec<Check> {
        let mut checks = Vec::new();
        let proto = parse_proto(&test.proto);
        if let Err(why) = proto {
            checks.push(malformed(format_args!("the protocol {:?}", test.proto), why));
        }
        if test.accept.is_empty() && test.deny.is_empty() {
            checks.push(malformed("the test", "it neither accepts nor denies anything"));
        }
        let mut reach = match sources(self.asked, &test.src) {
            Ok((_, _, sources)) => Reach { sources, covered: HashMap::new() },
            Err(check) => {
                checks.push(check);
                return checks;
            }
        };
        let Ok(proto) = proto else { return checks };
        let expectations = [(&test.accept, true), (&test.deny, false)];
        for (text, is_accepted) in expectations
            .into_iter()
            .flat_map(|(texts, accept)| texts.iter().map(move |text| (text, accept)))
        {
            checks.push(match self.destination(text) {
                Ok((destination, port)) => {
                    let verdict = self.verdict(&mut reach, &destination, port, proto);
                    verdict.check(&test.src, text, proto, is_accepted)
                }
                Err(why) => malformed(format_args!("the destination {text:?}"), why),
            });
        }
        checks
    }

    /// The addresses and the port that a test names.
    fn destination(&self, text: &str) -> Result<(IpRanges, u16), String> {
        let (host, port) = split_destination(text)?;
        let port: u16 = port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("{port:?} is not a single port"))?;
        if host.contains('/') {
            return Err("a test needs a single address, not a CIDR".to_owned());
        }
        let selector = parse_selector(self.asked.compiled.policy(), &host)
            .map_err(|why| format!("{host:?} {why}"))?;
        let addresses = self.asked.addresses(self.asked.id(&selector));
        if matches!(selector, Selector::Internet | Selector::SelfNodes | Selector::DangerAll) {
            return Err(format!("{host} cannot be tested"));
        }
        if is_named(&selector) && !is_single(&addresses) {
            return Err(format!("{host} stands for more than one address"));
        }
        if addresses.is_empty() {
            Err(format!("{host} has no addresses"))
        } else {
            Ok((addresses, port))
        }
    }

    /// Which parts of a source are let in, and by which rules.
    fn verdict(
        &mut self,
        reach: &mut Reach,
        destination: &IpRanges,
        port: u16,
        proto: Option<u8>,
    ) -> Verdict {
        let mut verdict =
            Verdict { all: reach.sources.len(), reached: RoaringBitmap::new(), rules: Vec::new() };
        for index in self.open_rules(destination, port, proto) {
            let rule = self.rules[index];
            let covered = self.covered(reach, rule);
            if !covered.is_empty() {
                verdict.reached |= covered;
                verdict.rules.push(rule.place());
            }
        }
        verdict
    }

    /// The rules that open a port of a destination, in order.
    fn open_rules(
        &mut self,
        destination: &IpRanges,
        port: u16,
        proto: Option<u8>,
    ) -> BTreeSet<usize> {
        // No protocol is the default set, which the service's tests take to hold every protocol.
        let is_open = |(opened, ports): (Option<u8>, &[PortRange])| {
            (opened.is_none() || opens(opened, proto))
                && ports.iter().any(|range| range.contains(port))
        };
        let asked = self.asked;
        let mut open = BTreeSet::new();
        for (selector, places) in &self.leading_to {
            let known = self.to.entry(*selector);
            if !known.or_insert_with(|| asked.addresses(*selector)).intersects(destination) {
                continue;
            }
            for (index, number) in places {
                if self.rules[*index].ports(*number).into_iter().any(is_open) {
                    open.insert(*index);
                }
            }
        }
        open
    }

    /// Which parts of a source a rule's sources touch.
    fn covered(&mut self, reach: &mut Reach, rule: WrittenRule<'_>) -> RoaringBitmap {
        let asked = self.asked;
        let mut covered = RoaringBitmap::new();
        for selector in rule.sources() {
            covered |= &*reach.covered.entry(*selector).or_insert_with(|| {
                let from = self.from.entry(*selector);
                let from = from.or_insert_with(|| asked.source_addresses(*selector));
                overlapping(from, &reach.sources)
            });
        }
        if covered.is_empty() || rule.postures().is_empty() {
            return covered;
        }
        let nodes = rule.sources().iter().map(|selector| asked.nodes(*selector));
        let compliant =
            asked.compliant(rule, nodes.fold(RoaringBitmap::new(), |all, some| all | some));
        overlapping(&asked.addresses_of(&compliant), &reach.sources)
    }
}

fn overlapping(addresses: &IpRanges, sources: &Sources) -> RoaringBitmap {
    (0..)
        .zip(sources)
        .filter(|(_, source)| addresses.overlaps(source))
        .map(|(index, _)| index)
        .collect()
}

/// Whether a selector is a name for addresses.
fn is_named(selector: &Selector) -> bool {
    matches!(selector, Selector::Host(_) | Selector::IpSet(_))
}

fn is_single(addresses: &IpRanges) -> bool {
    let mut ranges = addresses.ranges();
    ranges.next().is_some_and(|range| range.first == range.last) && ranges.next().is_none()
}

/// Protocols that a test may ask for; `None` is the default set.
fn parse_proto(text: &str) -> Result<Option<u8>, &'static str> {
    match &*text.to_ascii_lowercase() {
        "" => Ok(None),
        "tcp" | "6" => Ok(Some(6)),
        "udp" | "17" => Ok(Some(17)),
        "sctp" | "132" => Ok(Some(132)),
        _ => Err("only tcp, udp and sctp can be tested"),
    }
}

/// How far rules let a source through to a destination.
struct Verdict {
    all: usize,
    reached: RoaringBitmap,
    rules: Vec<RulePlace>,
}

impl Verdict {
    fn check(&self, src: &str, dst: &str, proto: Option<u8>, is_accepted: bool) -> Check {
        let (all, reached) = (self.all as u64, self.reached.len());
        let over = match proto {
            Some(6) => " over tcp",
            Some(17) => " over udp",
            Some(_) => " over sctp",
            None => "",
        };
        let should = if is_accepted { "accepted" } else { "denied" };
        let share = if reached == all {
            String::new()
        } else {
            format!(" for {reached} of {all} addresses only")
        };
        let happened = match &self.rules[..] {
            [] => "no rule allows it".to_owned(),
            [rule] => format!("{rule} allows it{share}"),
            [rule, others @ ..] => format!("{rule} and {} more allow it{share}", others.len()),
        };
        Check {
            passed: if is_accepted { reached == all } else { reached == 0 },
            expected: format!("{src} -> {dst}{over} should be {should}"),
            happened,
        }
    }
}

/// Runs `sshTests`, and remembers who may log in where.
struct LoginTests<'a> {
    asked: &'a Asked<'a>,
    access: HashMap<NodeId, Vec<SshAccess>>,
}

/// What a test expects of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Login {
    Accepted,
    Denied,
    Checked,
}

impl LoginTests<'_> {
    fn run(&mut self, test: &SshTest) -> Vec<Check> {
        let mut checks = Vec::new();
        let expectations: Vec<(&Arc<str>, Login)> = [
            (&test.accept, Login::Accepted),
            (&test.deny, Login::Denied),
            (&test.check, Login::Checked),
        ]
        .into_iter()
        .flat_map(|(names, login)| names.iter().map(move |name| (name, login)))
        .collect();
        if expectations.is_empty() {
            checks.push(malformed("the test", "it neither accepts, denies nor checks anything"));
        }
        if test.dst.is_empty() {
            checks.push(malformed("the test", "it has no destination"));
        }
        let (id, from) = match sources(self.asked, &test.src) {
            Ok((id, from, _)) => (id, from),
            Err(check) => {
                checks.push(check);
                return checks;
            }
        };
        for text in &test.dst {
            match self.destination(text, id) {
                Ok(nodes) => {
                    for (name, login) in &expectations {
                        checks.push(self.check(test, text, &nodes, &from, name, *login));
                    }
                }
                Err(why) => checks.push(malformed(format_args!("the destination {text:?}"), why)),
            }
        }
        checks
    }

    /// The nodes that a test names.
    fn destination(&self, text: &str, source: SelectorId) -> Result<RoaringBitmap, String> {
        let policy = self.asked.compiled.policy();
        let selector = parse_selector(policy, text).map_err(|why| format!("it {why}"))?;
        let is_wide = matches!(selector, Selector::Prefix(_)) && text.contains('/');
        if is_wide || matches!(selector, Selector::Internet | Selector::DangerAll) {
            return Err(format!("SSH tests dst contains disallowed element {text:?}"));
        }
        if selector == Selector::SelfNodes {
            let is_user = matches!(self.asked.selector(source), Selector::User(_));
            let own = is_user.then(|| self.asked.nodes(source));
            return own.ok_or_else(|| "only a user has nodes of its own".to_owned());
        }
        let id = self.asked.id(&selector);
        if is_named(&selector) && !is_single(&self.asked.addresses(id)) {
            return Err("it stands for more than one address".to_owned());
        }
        let nodes = self.asked.nodes(id);
        if nodes.is_empty() { Err("no node is selected by it".to_owned()) } else { Ok(nodes) }
    }

    fn check(
        &mut self,
        test: &SshTest,
        dst: &str,
        nodes: &RoaringBitmap,
        from: &IpRanges,
        name: &str,
        login: Login,
    ) -> Check {
        let mut happened = None;
        for node in nodes.iter().map(NodeId) {
            let compiled = self.asked.compiled;
            let access = self.access.entry(node).or_insert_with(|| compiled.ssh_access(node));
            let entry = Entry::of(access, from, name);
            if !entry.is_as_expected(login) {
                let label = compiled.node(node).map(|node| compiled.describe(node));
                happened = Some(format!("{} {entry}", label.unwrap_or_default()));
                break;
            }
        }
        let should = match login {
            Login::Accepted => "let in",
            Login::Denied => "refused",
            Login::Checked => "let in after a check",
        };
        let name = if name.is_empty() { "\"\"" } else { name };
        Check {
            passed: happened.is_none(),
            expected: format!("{} -> {dst} as {name} should be {should}", test.src),
            happened: happened.unwrap_or_else(|| "it is".to_owned()),
        }
    }
}

/// How a node treats the addresses that want to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    all_let_in: bool,
    any_let_in: bool,
    all_checked: bool,
}

impl Entry {
    fn of(access: &[SshAccess], from: &IpRanges, name: &str) -> Self {
        let allowing = || access.iter().filter(|rule| allows(rule, name));
        let addresses = |rule: &SshAccess| rule.principals.to_vec();
        let let_in: IpRanges = allowing().flat_map(addresses).collect();
        let checking = allowing().filter(|rule| rule.check_period.is_some());
        let checked: IpRanges = checking.flat_map(addresses).collect();
        Self {
            all_let_in: let_in.covers(from),
            any_let_in: let_in.intersects(from),
            all_checked: checked.covers(from),
        }
    }

    fn is_as_expected(self, login: Login) -> bool {
        match login {
            Login::Accepted => self.all_let_in,
            Login::Denied => !self.any_let_in,
            Login::Checked => self.all_checked,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self { all_checked: true, .. } => "lets it in after a check",
            Self { all_let_in: true, .. } => "lets it in",
            Self { any_let_in: true, .. } => "lets only some of its addresses in",
            _ => "refuses it",
        })
    }
}

/// Whether a rule lets somebody log in under a name.
fn allows(rule: &SshAccess, name: &str) -> bool {
    let wildcard = || rule.ssh_users.get("*").filter(|_| name != "root");
    !name.is_empty()
        && rule.ssh_users.get(name).or_else(wildcard).is_some_and(|login| !login.is_empty())
}

#[cfg(test)]
mod tests;
