//! Changes of a tailnet, as random as clients and admins are.

use std::sync::Arc;
use std::time::Duration;

use mesh_model::{Node, PreauthKeyId, Timestamp, UserId};
use mesh_state::{Command, Registration, Snapshot};
use mesh_testkit::random::{Random, Sections};
use mesh_testkit::{commands, new_user, node_key, registration};

/// How many reusable preauth keys there are: of two users, of tags, and for ephemeral nodes.
pub(super) const PREAUTH_KEYS: u64 = 4;

/// A change, by a number that picks the node among those that are there.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Register { machine: u64, key: u64, preauth_key: u64, how: How },
    Update { pick: usize, what: [u8; 6], offered: u8 },
    Expire { pick: usize, in_ms: Option<u64> },
    Rename { pick: usize, name: String },
    Tag { pick: usize, tags: u8 },
    ApproveRoutes { pick: usize, routes: u8 },
    Delete { pick: usize },
    RenameUser { user: u64, name: String },
    CreateUser { name: String },
    DeleteUser { user: u64 },
    SetPolicy { seed: u64 },
    EditPolicy { seed: u64 },
}

/// How a machine registers.
#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    Plainly,
    /// In place of the node key whose number is one less.
    Rotating,
    /// It asks for a key that lives for half a minute.
    Shortly,
    LoggingOut,
}

impl Change {
    pub(super) fn draw(random: &mut Random) -> Self {
        let pick = random.below(64);
        let seed = random.below(1 << 30) as u64;
        let user = 1 + random.below(3) as u64;
        match random.below(44) {
            0..5 => Self::Register {
                machine: 1 + random.below(9) as u64,
                key: 1 + random.below(16) as u64,
                preauth_key: 1 + random.below(4) as u64,
                how: random.pick(&[
                    How::Plainly,
                    How::Plainly,
                    How::Rotating,
                    How::Shortly,
                    How::LoggingOut,
                ]),
            },
            5..17 => Self::update(pick, random),
            17..20 => Self::RenameUser { user, name: user_name(random) },
            20..22 => {
                Self::Expire { pick, in_ms: random.chance(70).then(|| random.below(20_000) as u64) }
            }
            22..24 => Self::Rename { pick, name: name(random) },
            24..27 => Self::Tag { pick, tags: bits(random) },
            27..31 => Self::ApproveRoutes { pick, routes: bits(random) },
            31 => Self::Delete { pick },
            32 => Self::CreateUser { name: user_name(random) },
            33 => Self::DeleteUser { user },
            34..36 => Self::SetPolicy { seed },
            _ => Self::EditPolicy { seed },
        }
    }

    /// A node tells of itself whatever it likes.
    pub(super) fn update(pick: usize, random: &mut Random) -> Self {
        let what = std::array::from_fn(|_| random.pick(&[0, 1, 2]));
        Self::Update { pick, what, offered: bits(random) }
    }

    /// The command of this change, given the tailnet and its policy; none if it needs what is not there.
    pub(super) fn command(
        &self,
        snapshot: &Snapshot,
        now: Timestamp,
        sections: &mut Option<Sections>,
    ) -> Option<Command> {
        let nodes: Vec<&Arc<Node>> = snapshot.tailnet.nodes().collect();
        let node = |pick: &usize| nodes.get(pick % nodes.len().max(1)).copied();
        let id = |pick: &usize| node(pick).map(|node| node.id);
        Some(match self {
            Self::Register { machine, key, preauth_key, how } => {
                register(*machine, *key, *preauth_key, *how, now)
            }
            Self::Update { pick, what, offered } => commands::update(node(pick)?, *what, *offered),
            Self::Expire { pick, in_ms } => Command::SetNodeExpiry {
                node: id(pick)?,
                expires_at: in_ms.map(|ms| now + Duration::from_millis(ms)),
            },
            Self::Rename { pick, name } => {
                Command::RenameNode { node: id(pick)?, name: name.clone() }
            }
            Self::Tag { pick, tags } => {
                Command::TagNode { node: id(pick)?, tags: commands::tags(*tags) }
            }
            Self::ApproveRoutes { pick, routes } => {
                Command::ApproveRoutes { node: id(pick)?, routes: commands::routes(*routes) }
            }
            Self::Delete { pick } => Command::DeleteNode { node: id(pick)? },
            Self::RenameUser { user, name } => {
                Command::RenameUser { user: UserId(*user), name: name.clone() }
            }
            Self::CreateUser { name } => Command::CreateUser(new_user(name)),
            Self::DeleteUser { user } => Command::DeleteUser { user: UserId(*user) },
            Self::SetPolicy { seed } => {
                *sections = Some(Sections::new(&mut Random::new(*seed)));
                commands::random_policy(sections.as_ref()?)
            }
            Self::EditPolicy { seed } => {
                sections.as_mut()?.edit(&mut Random::new(*seed));
                commands::random_policy(sections.as_ref()?)
            }
        })
    }
}

fn bits(random: &mut Random) -> u8 {
    u8::try_from(random.below(64)).expect("six bits")
}

fn name(random: &mut Random) -> String {
    random.pick(&["a", "b", "ab", "web", "db"]).to_owned()
}

/// Names that random policies know, and two that they do not.
fn user_name(random: &mut Random) -> String {
    random.pick(&["alice", "bob", "carol", "a", "b"]).to_owned()
}

/// A machine comes, comes back, rotates its key, asks for a shorter life, or logs out.
fn register(machine: u64, key: u64, preauth_key: u64, how: How, now: Timestamp) -> Command {
    Command::Register(Box::new(Registration {
        preauth_key: Some(PreauthKeyId(preauth_key)),
        expiry: match how {
            How::LoggingOut => Some(now - Duration::from_secs(1)),
            How::Shortly => Some(now + Duration::from_secs(30)),
            How::Plainly | How::Rotating => None,
        },
        old_node_key: matches!(how, How::Rotating).then(|| node_key(key - 1)),
        ..registration(machine, key)
    }))
}
