//! When a gateway is asked what, and what becomes of its answers.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::message::{Answer, Client, NONCE_BYTES, Said, Service};

/// How long a mapping shall last. One that is granted for longer is renewed as if it was not.
///
/// Source: RFC 6886, section 3.3.
pub const LIFETIME: Duration = Duration::from_hours(2);

/// The shortest lifetime that is of use: what ends sooner would have peers told of changes all the time.
const LIFETIME_MIN: Duration = Duration::from_mins(2);

/// How long a gateway has to answer, and twice that when it is asked again. It is one hop away.
///
/// Source: tailscale `net/portmapper`, `portMapServiceTimeout`.
const ANSWER_MAX: Duration = Duration::from_millis(250);

/// How often something is asked until it counts as unanswered.
const SENDS_MAX: u32 = 2;

/// How often a gateway that holds a mapping is asked whether it still knows: it may have been started anew, or have
/// another public address.
///
/// Source: tailscale `net/portmapper`, `trustServiceStillAvailableDuration`.
const CHECK_PERIOD: Duration = Duration::from_mins(10);

/// The pause after the first failure; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_mins(1);

/// The longest pause: most networks have no port mapping, and never will.
pub const PAUSE_MAX: Duration = Duration::from_hours(1);

/// How many seconds a gateway's clock may be behind what it should show.
///
/// Source: RFC 6886, section 3.6.
const EPOCH_SLACK: u64 = 2;

/// Which protocols a gateway speaks, as far as it lets the node use them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Services {
    /// NAT-PMP.
    pub nat_pmp: bool,
    /// PCP.
    pub pcp: bool,
}

/// What is known of one gateway, and asked of it.
#[derive(Debug)]
pub struct Mapper {
    client: Client,
    /// As of the last probe that has ended.
    services: Option<Services>,
    /// What the probe under way, or the last, has heard: whether who answered may be used.
    heard: BTreeMap<Service, bool>,
    /// The public address that NAT-PMP has told last.
    address: Option<Ipv4Addr>,
    mapping: Option<Mapping>,
    step: Step,
    /// How often the requests of this step were sent.
    sends: u32,
    /// When this step ends, or is repeated.
    wake_at: Instant,
    /// Failures in a row.
    failures: u32,
    requests: VecDeque<Vec<u8>>,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Resting,
    /// Asking who is there.
    Probing,
    /// Asking for a mapping, or for more time.
    Mapping(Service),
}

/// A mapping that the gateway holds.
#[derive(Debug)]
struct Mapping {
    service: Service,
    external: SocketAddrV4,
    renew_at: Instant,
    expires_at: Instant,
    /// The gateway's clock when it last granted it, and the own.
    epoch: (u32, Instant),
}

impl Mapper {
    /// A mapper that asks at once for `port` at the address `own`. The nonce must be random: a gateway that speaks PCP lets
    /// nobody else change the mapping, and nobody else can answer for it.
    pub fn new(own: Ipv4Addr, port: u16, nonce: [u8; NONCE_BYTES], now: Instant) -> Self {
        Self {
            client: Client { own, port, nonce },
            services: None,
            heard: BTreeMap::new(),
            address: None,
            mapping: None,
            step: Step::Resting,
            sends: 0,
            wake_at: now,
            failures: 0,
            requests: VecDeque::new(),
        }
    }

    /// As which public address the node is reached, if the gateway leads one to it.
    pub fn external(&self) -> Option<SocketAddrV4> {
        self.mapping.as_ref().map(|mapping| mapping.external)
    }

    /// What the gateway speaks; `None` before it has had time to answer.
    pub fn services(&self) -> Option<Services> {
        self.services
    }

    /// Whether an answer of the gateway is waited for.
    pub fn is_asking(&self) -> bool {
        self.step != Step::Resting
    }

    /// The next datagram that the gateway is to be sent.
    pub fn poll_request(&mut self) -> Option<Vec<u8>> {
        self.requests.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Instant {
        self.wake_at
    }

    /// The datagram that gives the mapping back, if there is one.
    pub fn give_back(&self) -> Option<Vec<u8>> {
        let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        self.mapping.as_ref().map(|held| held.service.map(&self.client, nowhere, Duration::ZERO))
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.wake_at {
            return;
        }
        let may_repeat = self.sends < SENDS_MAX;
        match self.step {
            Step::Resting => self.begin(now),
            // Who answers has answered by now.
            Step::Probing if may_repeat && self.heard.is_empty() => self.send(now),
            Step::Mapping(_) if may_repeat => self.send(now),
            Step::Probing => self.end_probe(now),
            Step::Mapping(service) => self.fail(service, now),
        }
    }

    /// Takes a datagram of the gateway. What does not answer a question is passed over.
    pub fn handle_answer(&mut self, datagram: &[u8], now: Instant) {
        let Some(Answer { service, epoch, said }) = Answer::parse(datagram, &self.client) else {
            return;
        };
        match (self.step, said) {
            (Step::Probing, Said::Here { address }) => {
                self.note_here(service, address, epoch, now);
            }
            (Step::Probing, Said::Refused) => drop(self.heard.insert(service, false)),
            (Step::Mapping(asked), Said::Refused) if asked == service => self.fail(service, now),
            (Step::Mapping(asked), Said::Mapped { address, port, lifetime })
                if asked == service =>
            {
                match address.or(self.address).filter(|address| is_usable(*address)) {
                    Some(address) if port != 0 && lifetime >= LIFETIME_MIN => {
                        let external = SocketAddrV4::new(address, port);
                        self.note_mapped(service, external, lifetime.min(LIFETIME), epoch, now);
                    }
                    Some(_) | None => self.fail(service, now),
                }
            }
            _ => {}
        }
        if self.step == Step::Probing && self.heard.len() == 2 {
            self.end_probe(now);
        }
    }

    fn begin(&mut self, now: Instant) {
        self.forget_expired(now);
        match &self.mapping {
            Some(mapping) if now >= mapping.renew_at => {
                self.ask(Step::Mapping(mapping.service), now);
            }
            Some(_) | None => {
                self.heard.clear();
                self.ask(Step::Probing, now);
            }
        }
    }

    fn forget_expired(&mut self, now: Instant) {
        if self.mapping.take_if(|mapping| now >= mapping.expires_at).is_some() {
            // Who once had a port to give may have one again.
            self.failures = 0;
        }
    }

    fn ask(&mut self, step: Step, now: Instant) {
        self.step = step;
        self.sends = 0;
        self.send(now);
    }

    fn send(&mut self, now: Instant) {
        let Self { client, requests, .. } = self;
        match self.step {
            Step::Resting => {}
            Step::Probing => {
                requests
                    .extend([Service::NatPmp, Service::Pcp].map(|service| service.probe(client)));
            }
            Step::Mapping(service) => {
                let held = self.mapping.as_ref().map(|mapping| mapping.external);
                let suggested = held.unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
                requests.push_back(service.map(client, suggested, LIFETIME));
            }
        }
        self.wake_at = now + ANSWER_MAX * 2_u32.pow(self.sends);
        self.sends += 1;
    }

    /// Notes that a service answers. A mapping that it has forgotten, or has at another address, is renewed at once.
    fn note_here(&mut self, service: Service, address: Option<Ipv4Addr>, epoch: u32, now: Instant) {
        self.heard.insert(service, true);
        if let Some(mapping) = self.mapping.as_mut().filter(|held| held.service == service)
            && (mapping.is_forgotten(epoch, now)
                || address.is_some_and(|address| address != *mapping.external.ip()))
        {
            mapping.renew_at = now;
        }
        self.address = address.or(self.address);
    }

    fn end_probe(&mut self, now: Instant) {
        let is_here = |service| self.heard.get(&service).copied().unwrap_or_default();
        let services = Services { nat_pmp: is_here(Service::NatPmp), pcp: is_here(Service::Pcp) };
        self.services = Some(services);
        match &self.mapping {
            Some(mapping) if now >= mapping.renew_at => {
                self.ask(Step::Mapping(mapping.service), now);
            }
            Some(mapping) => self.rest_until(mapping.renew_at.min(now + CHECK_PERIOD)),
            // NAT-PMP first, as stock clients do: more gateways have it right.
            None if services.nat_pmp && self.address.is_some_and(is_usable) => {
                self.ask(Step::Mapping(Service::NatPmp), now);
            }
            None if services.pcp => self.ask(Step::Mapping(Service::Pcp), now),
            None => self.pause(now),
        }
    }

    fn note_mapped(
        &mut self,
        service: Service,
        external: SocketAddrV4,
        lifetime: Duration,
        epoch: u32,
        now: Instant,
    ) {
        let renew_at = now + lifetime / 2;
        let expires_at = now + lifetime;
        let epoch = (epoch, now);
        self.mapping = Some(Mapping { service, external, renew_at, expires_at, epoch });
        self.failures = 0;
        self.rest_until(renew_at.min(now + CHECK_PERIOD));
    }

    /// Notes that a service has not granted a mapping. One that is held is given up when its time is over.
    fn fail(&mut self, service: Service, now: Instant) {
        self.forget_expired(now);
        let has_other = service == Service::NatPmp && self.services.is_some_and(|found| found.pcp);
        if has_other && self.mapping.is_none() {
            return self.ask(Step::Mapping(Service::Pcp), now);
        }
        self.pause(now);
    }

    fn pause(&mut self, now: Instant) {
        let pause = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(self.failures)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        let expires_at = self.mapping.as_ref().map(|mapping| mapping.expires_at);
        self.rest_until(expires_at.map_or(now + pause, |at| at.min(now + pause)));
    }

    fn rest_until(&mut self, at: Instant) {
        self.step = Step::Resting;
        self.wake_at = at;
    }
}

impl Mapping {
    /// Whether the gateway's clock shows that it has been started anew since, which makes it forget mappings.
    ///
    /// Source: RFC 6886, section 3.6.
    fn is_forgotten(&self, epoch: u32, now: Instant) -> bool {
        let (epoch_then, then) = self.epoch;
        let since = now.saturating_duration_since(then).as_secs();
        u64::from(epoch) + EPOCH_SLACK < u64::from(epoch_then) + since - since / 8
    }
}

/// Whether peers can reach a gateway at an address that it tells: not one of a network that a provider shares among
/// customers (RFC 6598), whose range is also that of tailnets, and none that is no host's.
fn is_usable(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let is_shared = first == 100 && second & 0xc0 == 64;
    !(is_shared || first == 0 || first >= 224 || address.is_loopback() || address.is_link_local())
}

#[cfg(test)]
mod tests;
