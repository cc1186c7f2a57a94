//! What the check tells people and programs.

use mesh_wire::{DerpNode, DerpRegion, DerpRegionId};
use serde::Serialize;

use super::verdict::{
    Answer, Failure, Family, Finding, Login, Place, Probe, Severity, Way, is_usable, judge,
    judge_mesh,
};

/// How a login is told that came to nothing because of who it was.
const REFUSED: &str = "refused";

/// What was found out about a map.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) usable: bool,
    pub(super) regions: Vec<RegionReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct RegionReport {
    pub(super) region: DerpRegionId,
    code: String,
    pub(super) nodes: Vec<NodeReport>,
    /// Whether packets pass from each node to each other; absent where no two let us log in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) meshed: Option<bool>,
    pub(super) findings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
pub(super) struct NodeReport {
    pub(super) name: String,
    host: String,
    pub(super) usable: bool,
    ipv4: WayReport,
    ipv6: WayReport,
    login: &'static str,
    pub(super) findings: Vec<Finding>,
}

/// A node over one address family; what was not asked or had no good answer is absent.
#[derive(Debug, Serialize)]
struct WayReport {
    address: Option<String>,
    relay_ms: Option<f64>,
    stun_ms: Option<f64>,
    /// For the table: what was asked in vain.
    #[serde(skip)]
    failed: [bool; 2],
}

impl Report {
    pub(super) fn new(mut regions: Vec<RegionReport>) -> Self {
        regions.sort_by_key(|region| region.region);
        let usable = regions.iter().all(|region| {
            is_usable(&region.findings) && region.nodes.iter().all(|node| node.usable)
        });
        Self { usable, regions }
    }

    /// Why the map is not good, if so.
    pub(super) fn problem(&self) -> Option<String> {
        let nodes = self.regions.iter().flat_map(|region| &region.nodes);
        let (all, bad) = (nodes.clone().count(), nodes.filter(|node| !node.usable).count());
        let apart = self.regions.iter().filter(|region| region.meshed == Some(false)).count();
        match (bad, apart) {
            (0, 0) => None,
            (0, apart) => {
                Some(format!("{apart} region(s) have nodes that do not reach each other"))
            }
            (bad, _) => Some(format!("{bad} of {all} node(s) cannot be used")),
        }
    }

    pub(super) fn table(&self) -> String {
        let header = ["region", "code", "node", "host", "relay", "stun", "login", "result"];
        let rows = self.regions.iter().flat_map(|region| {
            let row = |node| row(region, node);
            region.nodes.iter().map(row)
        });
        let table = mesh_cli::table(header, rows);
        let findings: Vec<_> = self.regions.iter().flat_map(RegionReport::told).collect();
        if findings.is_empty() {
            return table;
        }
        format!("{table}\n\n{}", mesh_cli::table(["where", "level", "what"], findings))
    }
}

impl RegionReport {
    pub(super) fn new(
        region: &DerpRegion,
        probes: &[Probe],
        apart: Option<&[(String, String)]>,
    ) -> Self {
        let nodes = region.nodes.iter().zip(probes);
        Self {
            region: region.region_id,
            code: region.region_code.clone(),
            nodes: nodes.map(|(node, probe)| NodeReport::new(node, probe)).collect(),
            meshed: apart.map(<[_]>::is_empty),
            findings: judge_mesh(&region.nodes, apart),
        }
    }

    /// The rows of its findings and those of its nodes.
    fn told(&self) -> Vec<[String; 3]> {
        let nodes = self
            .nodes
            .iter()
            .flat_map(|node| node.findings.iter().map(|finding| (node.name.clone(), finding)));
        let region = format!("region {}", self.region);
        let own = self.findings.iter().map(|finding| (region.clone(), finding));
        nodes.chain(own).flat_map(|(place, finding)| told(&place, finding)).collect()
    }
}

fn told(place: &str, finding: &Finding) -> Vec<[String; 3]> {
    let level = match finding.severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Failure => "failure",
    };
    let row = |level: &str, text: &str| [place.to_owned(), level.to_owned(), text.to_owned()];
    let fix = finding.fix.as_ref().map(|fix| row("fix", fix));
    [row(level, &finding.what)].into_iter().chain(fix).collect()
}

fn row(region: &RegionReport, node: &NodeReport) -> [String; 8] {
    let worst = node.findings.iter().map(|finding| finding.severity).max();
    let result = match worst {
        Some(Severity::Failure) => "unusable",
        Some(Severity::Warning) => "usable, see below",
        // A stranger is refused either way: this says nothing of who is none.
        Some(Severity::Note) | None if node.login == REFUSED => "reachable, see below",
        Some(Severity::Note) | None => "good",
    };
    [
        region.region.to_string(),
        region.code.clone(),
        node.name.clone(),
        node.host.clone(),
        ways(node, 0, |way| way.relay_ms),
        ways(node, 1, |way| way.stun_ms),
        node.login.to_owned(),
        result.to_owned(),
    ]
}

fn ways(node: &NodeReport, question: usize, time: impl Fn(&WayReport) -> Option<f64>) -> String {
    let shown = [("v4", &node.ipv4), ("v6", &node.ipv6)].into_iter().filter_map(|(family, way)| {
        match (time(way), way.failed[question]) {
            (Some(ms), _) => Some(format!("{family} {ms:.1} ms")),
            (None, true) => Some(format!("{family} failed")),
            (None, false) => None,
        }
    });
    mesh_cli::list(&shown.collect::<Vec<_>>())
}

impl NodeReport {
    fn new(node: &DerpNode, probe: &Probe) -> Self {
        let findings = judge(node, probe);
        let [v4, v6] = &probe.ways;
        debug_assert_eq!((v4.family, v6.family), (Family::V4, Family::V6));
        Self {
            name: node.name.clone(),
            host: node.host_name.clone(),
            usable: is_usable(&findings),
            ipv4: WayReport::new(v4),
            ipv6: WayReport::new(v6),
            login: match probe.login {
                Login::Admitted => "admitted",
                Login::Refused => REFUSED,
                Login::Failed(_) => "failed",
                Login::Untried => "",
            },
            findings,
        }
    }
}

impl WayReport {
    fn new(way: &Way) -> Self {
        let ms = |answer: &Option<Answer>| {
            let time = answer.as_ref().and_then(|answer| answer.as_ref().ok());
            time.map(|time| (time.as_secs_f64() * 10_000.0).round() / 10.0)
        };
        let failed = |answer: &Option<Answer>| matches!(answer, Some(Err(failure)) if *failure != Failure::NoRoute);
        let address = match &way.place {
            Place::At(address) => Some(address.to_string()),
            Place::Disabled | Place::Unnamed | Place::Unknown(_) => None,
        };
        Self {
            address,
            relay_ms: ms(&way.relay),
            stun_ms: ms(&way.stun),
            failed: [failed(&way.relay), failed(&way.stun)],
        }
    }
}
