//! The domain of a tailnet in plain types: users, nodes, keys, and the [`Tailnet`] that holds them all.
//!
//! Nothing here decides anything; `mesh-state` does. Collections are persistent: a clone costs a few
//! reference counts and shares everything with its original, so each published snapshot can keep a whole
//! tailnet. The wire form of these types is `mesh-wire`'s business, which this crate does not know.

mod clock;
mod hostinfo;
mod ids;
mod key;
mod name;
mod node;
mod policy_version;
mod tag;
mod tailnet;
mod user;

pub use clock::{Clock, Timestamp, truncate_to_millis};
pub use hostinfo::{Hostinfo, Location, Service};
pub use ids::{
    ApiKeyId, AuthId, NodeId, ParseAuthIdError, PolicyVersionId, PreauthKeyId, SessionId,
    TailnetId, UserId,
};
pub use key::{ApiKey, PreauthKey, SecretHash};
pub use name::{
    LABEL_BYTES_MAX, NameError, check_label, check_user_name, label_from_hostname,
    label_with_suffix,
};
pub use node::{Node, Owner, RegisterMethod};
pub use policy_version::PolicyVersion;
pub use tag::{ParseTagError, Tag};
pub use tailnet::{Tailnet, Tombstone};
pub use user::User;
