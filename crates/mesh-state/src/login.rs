//! Logins that wait for an admin.

use std::sync::Arc;

use ipnet::IpNet;
use mesh_keys::{MachinePublic, NodePublic};
use mesh_model::{AuthId, Timestamp};
use rpds::{HashTrieMapSync, RedBlackTreeSetSync};

use crate::Registration;

/// How a login stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginState {
    /// Nobody has decided.
    Waiting,
    /// The node is registered.
    Approved,
    /// An admin said no.
    Rejected,
}

/// A login that somebody has to approve.
#[derive(Debug, Clone, PartialEq)]
pub struct Login {
    /// The request that started it.
    pub registration: Registration,
    /// How it stands.
    pub state: LoginState,
    /// When it is forgotten.
    pub expires_at: Timestamp,
}

/// All logins that wait or were just decided. Bounded; kept in memory only, for a client whose login is
/// forgotten starts another by itself.
#[derive(Debug, Clone, Default)]
pub struct Logins {
    all: HashTrieMapSync<AuthId, Arc<Login>>,
    ages: RedBlackTreeSetSync<(Timestamp, AuthId)>,
    keys: HashTrieMapSync<(MachinePublic, NodePublic), AuthId>,
    subnets: HashTrieMapSync<IpNet, usize>,
}

impl Logins {
    /// The login of this id.
    pub fn get(&self, id: &AuthId) -> Option<&Arc<Login>> {
        self.all.get(id)
    }

    /// The login that this machine started for this node key.
    pub fn find(&self, machine: MachinePublic, key: NodePublic) -> Option<(&AuthId, &Arc<Login>)> {
        let id = self.keys.get(&(machine, key))?;
        Some((id, self.get(id)?))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.size()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// When the next one is to be forgotten.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.ages.first().map(|(expires_at, _)| *expires_at)
    }

    /// Adds or replaces a login.
    pub(crate) fn put(&mut self, id: AuthId, login: Login) {
        self.remove(&id);
        let registration = &login.registration;
        self.keys.insert_mut((registration.machine_key, registration.node_key), id.clone());
        self.ages.insert_mut((login.expires_at, id.clone()));
        if let Some(subnet) = registration.subnet {
            self.subnets.insert_mut(subnet, self.count_in(subnet) + 1);
        }
        self.all.insert_mut(id, Arc::new(login));
    }

    /// Makes room for one more login by forgetting the oldest ones.
    pub(crate) fn make_room(&mut self, max: usize) {
        while self.len() >= max {
            let Some((_, oldest)) = self.ages.first().cloned() else { return };
            self.remove(&oldest);
        }
    }

    /// Forgets logins whose time is over at `now`; says whether there were any.
    pub(crate) fn forget_expired(&mut self, now: Timestamp) -> bool {
        let before = self.len();
        while let Some((expires_at, id)) = self.ages.first().cloned() {
            if expires_at > now {
                break;
            }
            self.remove(&id);
        }
        self.len() < before
    }

    /// How many there are from a subnet.
    pub(crate) fn count_in(&self, subnet: IpNet) -> usize {
        self.subnets.get(&subnet).copied().unwrap_or(0)
    }

    fn remove(&mut self, id: &AuthId) {
        let Some(login) = self.all.get(id).cloned() else { return };
        self.all.remove_mut(id);
        self.ages.remove_mut(&(login.expires_at, id.clone()));
        self.keys.remove_mut(&(login.registration.machine_key, login.registration.node_key));
        if let Some(subnet) = login.registration.subnet {
            match self.count_in(subnet) {
                0 | 1 => {
                    self.subnets.remove_mut(&subnet);
                }
                count => self.subnets.insert_mut(subnet, count - 1),
            }
        }
    }
}
