//! Users.

use crate::{Timestamp, UserId};

/// A person (or a service) that owns nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Row id.
    pub id: UserId,
    /// Unique name.
    pub name: String,
    /// Name for people to read; may be empty.
    pub display_name: String,
    /// May be empty.
    pub email: String,
    /// Absolute URL; may be empty.
    pub profile_pic_url: String,
    /// Identity provider, empty for a local user.
    pub provider: String,
    /// The provider's id for the user, empty for a local user.
    pub provider_id: String,
    /// When the user was made.
    pub created_at: Timestamp,
}

impl User {
    /// The name that policies and clients know the user by: the email address, else the name.
    pub fn login_name(&self) -> &str {
        if self.email.is_empty() { &self.name } else { &self.email }
    }

    /// The name to greet the user with.
    pub fn display_name(&self) -> &str {
        if self.display_name.is_empty() { &self.name } else { &self.display_name }
    }
}
