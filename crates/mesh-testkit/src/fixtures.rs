//! Keys by number and requests to vary.

use mesh_keys::{DiscoPublic, MachinePublic, NetworkLockPublic, NodePublic};
use mesh_model::{AuthId, Hostinfo, SecretHash, Timestamp, UserId};
use mesh_state::{Context, NewPreauthKey, NewSecret, NewUser, Registration};

/// 32 bytes that no other kind and number have.
fn bytes(kind: u8, number: u64) -> [u8; 32] {
    let mut bytes = [kind; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Machine key of this number.
pub fn machine_key(number: u64) -> MachinePublic {
    MachinePublic::from_bytes(bytes(b'm', number))
}

/// Node key of this number.
pub fn node_key(number: u64) -> NodePublic {
    NodePublic::from_bytes(bytes(b'n', number))
}

/// Disco key of this number.
pub fn disco_key(number: u64) -> DiscoPublic {
    DiscoPublic::from_bytes(bytes(b'd', number))
}

/// Auth id of this number.
pub fn auth_id(number: u64) -> AuthId {
    let mut random = [0; 20];
    random[..8].copy_from_slice(&number.to_be_bytes());
    AuthId::from_random(random)
}

/// What commands are carried out in.
pub fn context(now: Timestamp) -> Context {
    Context { now, entropy: 7 }
}

/// A register request of a machine for a node key, without credentials; its auth id is the node key's number.
pub fn registration(machine: u64, key: u64) -> Registration {
    Registration {
        machine_key: machine_key(machine),
        node_key: node_key(key),
        old_node_key: None,
        network_lock_key: NetworkLockPublic::default(),
        preauth_key: None,
        expiry: None,
        followup: None,
        subnet: None,
        fresh_auth_id: auth_id(key),
        ephemeral: false,
        hostinfo: Hostinfo {
            hostname: format!("machine {machine}"),
            os: "linux".to_owned(),
            ..Hostinfo::default()
        },
        capability_version: 130,
    }
}

/// A user of this name.
pub fn new_user(name: &str) -> NewUser {
    NewUser { name: name.to_owned(), ..NewUser::default() }
}

/// A single-use preauth key of a user that does not expire.
pub fn new_preauth_key(public_id: &str, user: UserId) -> NewPreauthKey {
    NewPreauthKey {
        secret: NewSecret {
            public_id: public_id.to_owned(),
            hash: SecretHash(format!("hash of {public_id}")),
        },
        user: Some(user),
        tags: Vec::new(),
        reusable: false,
        ephemeral: false,
        expires_at: None,
    }
}
