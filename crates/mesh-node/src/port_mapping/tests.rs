use std::sync::{Arc, Mutex};

use mesh_testkit::{Gateway, Willing};
use tokio_util::task::AbortOnDropHandle;

use super::*;

const PORT: u16 = 41_641;

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A gateway on loopback.
struct Router {
    address: SocketAddrV4,
    gateway: Arc<Mutex<Gateway>>,
    _task: AbortOnDropHandle<()>,
}

impl Router {
    /// One that answers as it should.
    async fn new(nat_pmp: Willing, pcp: Willing) -> Self {
        Self::answering(nat_pmp, pcp, |answer| answer.into_iter().collect()).await
    }

    /// One whose answers are changed.
    async fn answering(
        nat_pmp: Willing,
        pcp: Willing,
        change: impl Fn(Option<Vec<u8>>) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, socket.local_addr().unwrap().port());
        let gateway = Arc::new(Mutex::new(Gateway::new(nat_pmp, pcp)));
        let answering = Arc::clone(&gateway);
        let task = tokio::spawn(async move {
            let mut buffer = [0; ANSWER_BYTES_MAX];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let answer = answering.lock().unwrap().answer(&buffer[..length]);
                for answer in change(answer) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        Self { address, gateway, _task: AbortOnDropHandle::new(task) }
    }

    /// Waits until the gateway holds that many mappings.
    async fn holds(&self, count: usize) {
        let holds = async {
            while self.gateway.lock().unwrap().mappings.len() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, holds).await.expect("the gateway hears of it");
    }
}

/// What a task has done once that finds its gateway there, and what it has told.
async fn check(gateway: Option<SocketAddrV4>, expected: PortMapped) {
    let (mapped, mut told) = watch::channel(PortMapped::default());
    let port_mapping = PortMapping { find_gateway: || gateway, port: PORT, mapped };
    let mut line = None;
    tokio::time::timeout(PATIENCE, port_mapping.work(&mut line)).await.expect("it ends");
    assert_eq!(*told.borrow_and_update(), expected);
    // What it was once told it knows.
    port_mapping.work(&mut line).await;
    assert!(!told.has_changed().unwrap());
}

fn found(nat_pmp: bool, pcp: bool, public: Option<[u8; 4]>) -> PortMapped {
    let endpoint = public.map(|public| SocketAddr::from((public, PORT ^ 0x8000)));
    PortMapped { endpoint, services: Some(Services { nat_pmp, pcp }) }
}

#[tokio::test]
async fn what_a_gateway_grants_is_told() {
    use Willing::{No, Refuses, Yes};
    for (nat_pmp, pcp, expected) in [
        (Yes, No, found(true, false, Some([203, 0, 113, 7]))),
        (No, Yes, found(false, true, Some([203, 0, 113, 7]))),
        (Yes, Yes, found(true, true, Some([203, 0, 113, 7]))),
        (Refuses, Refuses, found(true, true, None)),
        (No, No, found(false, false, None)),
    ] {
        let router = Router::new(nat_pmp, pcp).await;
        check(Some(router.address), expected).await;
    }
}

#[tokio::test]
async fn where_nobody_listens_or_there_is_no_gateway_nothing_is_told() {
    let gone = Router::new(Willing::Yes, Willing::Yes).await.address;
    tokio::task::yield_now().await;
    check(Some(gone), found(false, false, None)).await;
    check(None, PortMapped::default()).await;
}

#[tokio::test]
async fn a_gateway_that_talks_nonsense_is_heard_out_and_not_believed() {
    let nonsense = |answer: Option<Vec<u8>>| {
        let answer = answer.unwrap_or_default();
        let cut = (0..answer.len()).map(|length| answer[..length].to_vec());
        cut.chain([vec![0xff; 4000], vec![0; 16], vec![2; 60]]).collect()
    };
    let router = Router::answering(Willing::Yes, Willing::Yes, nonsense).await;
    check(Some(router.address), found(false, false, None)).await;
    router.holds(0).await;
}

#[tokio::test]
async fn the_mapping_goes_back_when_the_task_ends() {
    for (nat_pmp, pcp) in [(Willing::Yes, Willing::No), (Willing::No, Willing::Yes)] {
        let router = Router::new(nat_pmp, pcp).await;
        let (mapped, mut told) = watch::channel(PortMapped::default());
        let gateway = router.address;
        let port_mapping = PortMapping { find_gateway: move || Some(gateway), port: PORT, mapped };
        let task = AbortOnDropHandle::new(tokio::spawn(port_mapping.run()));
        let is_mapped = told.wait_for(|told| told.endpoint.is_some());
        tokio::time::timeout(PATIENCE, is_mapped).await.expect("in time").expect("a task");
        router.holds(1).await;
        drop(task);
        router.holds(0).await;
    }
}

#[tokio::test]
async fn another_gateway_is_asked_anew_and_the_first_has_its_mapping_back() {
    let first = Router::new(Willing::Yes, Willing::No).await;
    let second = Router::new(Willing::No, Willing::Yes).await;
    let (mapped, told) = watch::channel(PortMapped::default());
    let gateway = Mutex::new(Some(first.address));
    let find_gateway = || *gateway.lock().unwrap();
    let port_mapping = PortMapping { find_gateway, port: PORT, mapped };
    let mut line = None;
    port_mapping.work(&mut line).await;
    first.holds(1).await;
    *gateway.lock().unwrap() = Some(second.address);
    port_mapping.work(&mut line).await;
    first.holds(0).await;
    second.holds(1).await;
    assert_eq!(*told.borrow(), found(false, true, Some([203, 0, 113, 7])));
    *gateway.lock().unwrap() = None;
    port_mapping.work(&mut line).await;
    second.holds(0).await;
    assert_eq!(*told.borrow(), PortMapped::default());
}
