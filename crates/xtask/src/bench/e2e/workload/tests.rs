//! Workloads that share a run.

use super::{Sizes, Workload, sessions};

#[test]
fn workloads_of_one_tailnet_share_a_run() {
    let all = [Workload::W1, Workload::W2, Workload::W5, Workload::W6, Workload::W7, Workload::W8];
    let sessions = sessions(&all.into(), Sizes::default());
    let phases: Vec<_> = sessions.iter().map(|session| session.phases.join(" ")).collect();
    assert_eq!(phases, ["join join-one flap endpoints restart-server", "join policy-edit"]);
    assert_eq!(sessions[0].title(), "W1-W5-W6-W8-2000");
    assert_eq!((sessions[0].spec.nodes, sessions[0].together()), (2001, 2000));
}

#[test]
fn a_workload_alone_joins_first() {
    let sessions = sessions(&[Workload::W6].into(), Sizes::default());
    assert_eq!(sessions[0].phases, ["join", "flap", "endpoints"]);
}

#[test]
fn other_sizes_leave_open_tailnets_open() {
    let sizes = Sizes { nodes: Some(200), rules: Some(1000) };
    let sessions = sessions(&[Workload::W1, Workload::W2].into(), sizes);
    let sizes: Vec<_> =
        sessions.iter().map(|session| (session.spec.nodes, session.spec.rules)).collect();
    assert_eq!(sizes, [(200, 0), (200, 1000)]);
}
