//! What the answers of a node mean for clients: pure, so that every case can be tried without a network.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use mesh_wire::DerpNode;
use thiserror::Error;

/// Ways of a node that only clients of one address family take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn has(self, address: &IpAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }

    /// What the map says of a node in this family.
    pub(super) fn said(self, node: &DerpNode) -> &str {
        match self {
            Self::V4 => &node.ipv4,
            Self::V6 => &node.ipv6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Why a question has no good answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Failure {
    /// This machine does not have the address family, so nothing was found out.
    #[error("this machine cannot send there")]
    NoRoute,
    #[error("nothing answers in time")]
    Silent,
    #[error("the port is closed")]
    Closed,
    /// Of the system.
    #[error("{0}")]
    Io(String),
    #[error("what answers speaks no TLS")]
    NotTls,
    #[error("its certificate is not the one that certname pins")]
    WrongPin,
    #[error("the pinned certificate does not name the hostname, which stock clients want")]
    PinnedForOther,
    #[error("it shows other certificates beside the pinned one, which stock clients refuse")]
    PinnedAmongOthers,
    #[error("the pinned certificate has expired, so that stock clients refuse it")]
    PinnedExpired,
    #[error("the pinned certificate is not valid yet, so that stock clients refuse it")]
    PinnedTooEarly,
    #[error("its certificate is not trusted: {0}")]
    Untrusted(String),
    #[error("what answers is no relay: it has {0} for /derp/latency-check")]
    NotRelay(String),
    #[error("it does not let a client log in: {0}")]
    Login(String),
    #[error("it answers with {0} instead of 204 and the client's challenge")]
    Portal(String),
}

impl Failure {
    /// What to do against it.
    fn fix(&self, node: &DerpNode) -> String {
        match self {
            Self::NoRoute => "check from a machine that has it".to_owned(),
            Self::Silent | Self::Closed | Self::Io(_) => {
                "see that it runs, that ports and addresses in the map are its own, and that no firewall is \
                 between"
                    .to_owned()
            }
            Self::NotTls => {
                "name the port of its TLS listener as derpport: clients do not speak plain http".to_owned()
            }
            Self::WrongPin => {
                "put the pin of the certificate that it has now into certname, or give it back the old one"
                    .to_owned()
            }
            Self::PinnedForOther => format!(
                "have a certificate made for {}, or put the name that it has into hostname",
                node.host_name
            ),
            Self::PinnedAmongOthers => {
                "leave nothing but that certificate in the relay's certificate file, or take certname out of the map \
                 if an authority has signed it"
                    .to_owned()
            }
            Self::PinnedExpired => {
                "have another certificate made, and put its pin into certname".to_owned()
            }
            Self::PinnedTooEarly => {
                "set the clocks of the relay and of this machine, then have another certificate made and put its pin \
                 into certname"
                    .to_owned()
            }
            Self::Untrusted(_) => {
                "give it a certificate of a public authority for its hostname, or pin its own by certname"
                    .to_owned()
            }
            Self::NotRelay(_) | Self::Login(_) => {
                "see that derpport is the relay's own, and that a proxy before it passes upgrades on".to_owned()
            }
            Self::Portal(_) => {
                "have the relay answer /generate_204 on port 80, or leave out canport80".to_owned()
            }
        }
    }
}

/// What came of a question.
pub(super) type Answer = Result<Duration, Failure>;

/// Where a node is in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The map says that there is none.
    Disabled,
    /// Its name has no address of this family.
    Unnamed,
    /// Its name cannot be looked up.
    Unknown(String),
    At(IpAddr),
}

/// The answers in one family; `None` is what was not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) family: Family,
    pub(super) place: Place,
    /// TCP, TLS and the measurement of latency, of which this is the time.
    pub(super) relay: Option<Answer>,
    pub(super) stun: Option<Answer>,
}

/// What became of a login with a key that nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Login {
    Admitted,
    /// The relay hung up on the key alone, as one does that verifies its clients.
    Refused,
    Failed(Failure),
    /// Nothing is there to log in to.
    Untried,
}

/// All that was found out about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) ways: [Way; 2],
    pub(super) login: Login,
    /// The captive-portal check, where the map promises it.
    pub(super) port_80: Option<Answer>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Worth knowing.
    Note,
    /// Some clients are worse off.
    Warning,
    /// Clients cannot use it.
    Failure,
}

/// Something to know of a node or region.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) what: String,
    pub(super) fix: Option<String>,
}

impl Finding {
    fn note(what: &str) -> Self {
        Self { severity: Severity::Note, what: what.to_owned(), fix: None }
    }
}

/// What the answers of a node mean, the worst first.
pub(super) fn judge(node: &DerpNode, probe: &Probe) -> Vec<Finding> {
    let mut findings = judge_places(node, &probe.ways);
    let of = |ask: fn(&Way) -> &Option<Answer>| {
        let asked = probe.ways.iter().map(move |way| (way.family, ask(way).as_ref()));
        asked.filter_map(|(family, answer)| Some((family, answer?))).collect::<Vec<_>>()
    };
    findings.extend(judge_ways("relay", node, &of(|way| &way.relay)));
    findings.extend(judge_ways("STUN", node, &of(|way| &way.stun)).map(|mut finding| {
        if finding.severity == Severity::Failure {
            finding.fix = Some(format!(
                "open UDP port {} to it and see that STUN runs, or say stunport: -1 if it has none",
                stun_port(node).unwrap_or_default()
            ));
        }
        finding
    }));
    match &probe.login {
        Login::Admitted | Login::Untried => {}
        Login::Refused => findings.push(Finding::note(
            "it refuses a client that it does not know, as a relay does that verifies them: whether it lets your own \
             nodes in was not tried",
        )),
        Login::Failed(failure) => {
            findings.push(finding(Severity::Failure, failure.to_string(), node, failure));
        }
    }
    if let Some(Err(failure)) = &probe.port_80 {
        // Whatever is wrong with the port, the promise is what can be mended.
        let fix = Failure::Portal(String::new()).fix(node);
        let what = format!("port 80: {failure}");
        findings.push(Finding { severity: Severity::Warning, what, fix: Some(fix) });
    }
    if node.insecure_for_tests && node.cert_name.is_empty() {
        findings.push(Finding {
            severity: Severity::Warning,
            what: "insecurefortests: anybody on the way can pass for this relay".to_owned(),
            fix: Some("leave it out, and pin the certificate by certname".to_owned()),
        });
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// The port of STUN, if there is one.
pub(super) fn stun_port(node: &DerpNode) -> Option<u16> {
    match node.stun_port {
        0 => Some(3478),
        port => u16::try_from(port).ok(),
    }
}

fn judge_places(node: &DerpNode, ways: &[Way]) -> Vec<Finding> {
    if ways.iter().any(|way| matches!(way.place, Place::At(_))) {
        return Vec::new();
    }
    let error = ways.iter().find_map(|way| match &way.place {
        Place::Unknown(error) => Some(error.as_str()),
        Place::Disabled | Place::Unnamed | Place::At(_) => None,
    });
    let host = &node.host_name;
    vec![Finding {
        severity: Severity::Failure,
        what: format!("{host} has no address: {}", error.unwrap_or("none that the map allows")),
        fix: Some("correct hostname, its DNS, or ipv4 and ipv6".to_owned()),
    }]
}

/// What the answers to one question mean. One family that works is enough for most clients.
fn judge_ways(
    what: &str,
    node: &DerpNode,
    answers: &[(Family, &Answer)],
) -> impl Iterator<Item = Finding> + use<> {
    let works = answers.iter().any(|(_, answer)| answer.is_ok());
    let failures =
        answers.iter().filter_map(|(family, answer)| Some((*family, answer.as_ref().err()?)));
    let mut failures: Vec<_> = failures.collect();
    let same = matches!(failures[..], [(_, one), (_, other)] if one == other);
    if same {
        failures.truncate(1);
    }
    let judged = failures.into_iter().map(|(family, failure)| {
        let over = if same { "IPv4 and IPv6".to_owned() } else { family.to_string() };
        let severity = match (failure == &Failure::NoRoute, works) {
            (true, true) => Severity::Note,
            // Without a route, nobody knows whether others have one.
            (true, false) | (false, true) => Severity::Warning,
            (false, false) => Severity::Failure,
        };
        finding(severity, format!("{what} over {over}: {failure}"), node, failure)
    });
    judged.collect::<Vec<_>>().into_iter()
}

fn finding(severity: Severity, what: String, node: &DerpNode, failure: &Failure) -> Finding {
    let fix = (severity > Severity::Note).then(|| failure.fix(node));
    Finding { severity, what, fix }
}

/// What it means which pairs of a region's nodes, from and to, were found to pass no packets on; `None` is that no two
/// of them could be tried.
pub(super) fn judge_mesh(nodes: &[DerpNode], apart: Option<&[(String, String)]>) -> Vec<Finding> {
    let relays = nodes.iter().filter(|node| !node.stun_only).count();
    match apart {
        None if relays < 2 => Vec::new(),
        None => vec![Finding::note(
            "whether its nodes reach each other could not be tried, for no two of them let a client in",
        )],
        Some([]) => Vec::new(),
        Some(apart) => {
            let shown: Vec<_> = apart.iter().map(|(from, to)| format!("{from} to {to}")).collect();
            let what = format!("packets do not pass from {}", shown.join(", "));
            let fix = "clients of one node do not reach those of the other: mesh the nodes with one key, or make \
                       regions of them";
            vec![Finding { severity: Severity::Failure, what, fix: Some(fix.to_owned()) }]
        }
    }
}

/// Whether clients can use what this was found out about.
pub(super) fn is_usable(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.severity < Severity::Failure)
}

#[cfg(test)]
mod tests;
