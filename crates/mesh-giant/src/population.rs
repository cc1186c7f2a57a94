//! Who lives in a synthetic tailnet: machines as they come, one after the other, each decided by the seed alone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mesh_keys::{DiscoPublic, KEY_BYTES, MachinePublic, NetworkLockPublic, NodePublic};
use mesh_model::{AuthId, Hostinfo, PreauthKeyId, SecretHash, Service, Tag, UserId};
use mesh_state::{Command, NewPreauthKey, NewSecret, NewUser, NodeUpdate, Outcome, Registration};
use mesh_testkit::random::Random;

/// The relay that a server offers when it is told nothing else, and every machine's home.
const HOME_DERP: u32 = 999;

/// The client that all machines run: version and capability version.
const CLIENT: (&str, u32) = ("1.102.5-t0123456789-g0123456789", 141);

/// What machines run on: name for Go, version, how a host of it is called.
const SYSTEMS: [(&str, &str, &str); 5] = [
    ("linux", "6.12.48+deb13-amd64", "srv"),
    ("linux", "5.15.0-164-generic", "build"),
    ("windows", "10.0.26100.6899", "desktop"),
    ("macOS", "26.1.0", "macbook"),
    ("iOS", "26.1.0", "iphone"),
];

/// A source of machines.
#[derive(Debug)]
pub(crate) struct Population {
    random: Random,
    owners: Vec<Owner>,
    users: usize,
    tagged_percent: usize,
    made: u32,
}

/// Who machines belong to; each has one preauth key, of the id that is its place among all counted from 1.
#[derive(Debug)]
enum Owner {
    User(String),
    Tag(Tag),
}

/// A machine that wants to join.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) registration: Registration,
    pub(crate) disco_key: DiscoPublic,
    endpoints: Vec<SocketAddr>,
}

impl Population {
    /// A population of a seed. At least one user or one tag is there, whatever was asked for.
    pub(crate) fn new(seed: u64, users: usize, tags: usize, tagged_percent: usize) -> Self {
        let users = if tags == 0 { users.max(1) } else { users };
        let user = |number| Owner::User(format!("user{number}@example.com"));
        let tag = |number| {
            let tag = format!("tag:t{number}").parse();
            Owner::Tag(tag.expect("invariant: a letter and digits make a tag"))
        };
        Self {
            random: Random::new(seed),
            owners: (1..=users).map(user).chain((1..=tags).map(tag)).collect(),
            users,
            tagged_percent,
            made: 0,
        }
    }

    /// Commands that make users and keys in a tailnet that has neither. The keys open nothing for a client, for
    /// nobody knows a secret of theirs.
    pub(crate) fn owners(&self) -> impl Iterator<Item = Command> {
        let users = self.owners.iter().filter_map(|owner| match owner {
            Owner::User(name) => {
                Some(Command::CreateUser(NewUser { name: name.clone(), ..NewUser::default() }))
            }
            Owner::Tag(_) => None,
        });
        let keys = self.owners.iter().zip(1_u64..).map(|(owner, number)| {
            let (user, tags) = match owner {
                Owner::User(_) => (Some(UserId(number)), Vec::new()),
                Owner::Tag(tag) => (None, vec![tag.clone()]),
            };
            Command::CreatePreauthKey(NewPreauthKey {
                secret: NewSecret {
                    public_id: format!("synthetic{number}"),
                    hash: SecretHash("no secret has this hash".to_owned()),
                },
                user,
                tags,
                reusable: true,
                ephemeral: false,
                expires_at: None,
            })
        });
        users.chain(keys)
    }

    /// The next machine.
    pub(crate) fn machine(&mut self) -> Machine {
        self.made += 1;
        let (os, os_version, kind) = self.random.pick(&SYSTEMS);
        Machine {
            registration: Registration {
                machine_key: MachinePublic::from_bytes(self.key()),
                node_key: NodePublic::from_bytes(self.key()),
                old_node_key: None,
                network_lock_key: NetworkLockPublic::from_bytes(self.key()),
                preauth_key: Some(self.preauth_key()),
                expiry: None,
                followup: None,
                subnet: None,
                fresh_auth_id: AuthId::from_random([0; 20]),
                ephemeral: false,
                hostinfo: Hostinfo {
                    hostname: format!("{kind}-{:06}", self.made),
                    os: os.to_owned(),
                    os_version: os_version.to_owned(),
                    ipn_version: CLIENT.0.to_owned(),
                    services: self.services(),
                    ..Hostinfo::default()
                },
                capability_version: CLIENT.1,
            },
            disco_key: DiscoPublic::from_bytes(self.key()),
            endpoints: self.endpoints(),
        }
    }

    fn preauth_key(&mut self) -> PreauthKeyId {
        let tags = self.owners.len() - self.users;
        let is_tagged = tags > 0 && (self.users == 0 || self.random.chance(self.tagged_percent));
        let place = if is_tagged {
            self.users + self.random.below(tags)
        } else {
            self.random.below(self.users)
        };
        PreauthKeyId(place as u64 + 1)
    }

    /// The peer API, on a port of each family that it picks by itself.
    fn services(&mut self) -> Vec<Service> {
        let protos = ["peerapi4", "peerapi6"];
        let service = |proto: &str| Service {
            proto: proto.to_owned(),
            port: self.port(),
            description: String::new(),
        };
        protos.into_iter().map(service).collect()
    }

    /// One behind a NAT, as a STUN server sees it, and one in the local network.
    fn endpoints(&mut self) -> Vec<SocketAddr> {
        let [network, outer @ .., inner, host] = self.key();
        // Benchmarks have 198.18.0.0/15 to themselves.
        let public = Ipv4Addr::new(198, 18 + network % 2, outer[0], outer[1]);
        let local = Ipv4Addr::new(192, 168, inner, host);
        vec![
            SocketAddr::new(IpAddr::V4(public), self.port()),
            SocketAddr::new(IpAddr::V4(local), self.port()),
        ]
    }

    fn port(&mut self) -> u16 {
        let port = 1024 + self.random.below(usize::from(u16::MAX) - 1024);
        u16::try_from(port).expect("invariant: below the highest port")
    }

    fn key(&mut self) -> [u8; KEY_BYTES] {
        std::array::from_fn(|_| u8::try_from(self.random.below(256)).expect("invariant: a byte"))
    }
}

impl Machine {
    /// What its node tells once it is in, by the outcome of its registration.
    pub(crate) fn update(&self, registered: &Outcome) -> Option<NodeUpdate> {
        let Outcome::Registered(node) = registered else { return None };
        Some(NodeUpdate {
            node: node.id,
            node_key: self.registration.node_key,
            disco_key: self.disco_key,
            hostinfo: None,
            endpoints: self.endpoints.clone(),
            home_derp: Some(HOME_DERP),
            capability_version: self.registration.capability_version,
        })
    }
}

#[cfg(test)]
mod tests;
