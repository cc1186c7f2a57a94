//! People: accounts, logins and the profiles that peers see.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, `User`, `Login`, `UserProfile`.

use jiff::Timestamp;

use crate::codec::wire_struct;
use crate::{LoginId, UserId};

wire_struct! {
    /// An account in a tailnet, as a registration's answer tells it.
    pub struct User {
        /// Equals [`UserProfile::id`] of the same person.
        pub id: UserId = "ID" (always);
        /// What the client shows.
        pub display_name: String = "DisplayName" (always);
        /// An absolute URL, or empty.
        pub profile_pic_url: String = "ProfilePicURL";
        /// When the account was made.
        pub created: Option<Timestamp> = "Created";
    }
}

wire_struct! {
    /// One way to sign in to an account.
    pub struct Login {
        /// Clients compare it only with itself; the user's id serves.
        pub id: LoginId = "ID" (always);
        /// The identity provider, such as `google` or `oidc`.
        pub provider: String = "Provider" (always);
        /// Usually a mail address.
        pub login_name: String = "LoginName" (always);
        /// What the client shows.
        pub display_name: String = "DisplayName" (always);
        /// An absolute URL, or empty.
        pub profile_pic_url: String = "ProfilePicURL";
    }
}

wire_struct! {
    /// What a node is told of the owner of a peer, or of itself.
    ///
    /// Must arrive before or with the first peer whose `User` or `Sharer` is this id.
    pub struct UserProfile {
        /// The user.
        pub id: UserId = "ID" (always);
        /// Usually a mail address; what `SshPrincipal::user_login` is compared with.
        pub login_name: String = "LoginName" (always);
        /// What the client shows.
        pub display_name: String = "DisplayName" (always);
        /// An absolute URL, or empty: the Rust client ends its stream at a relative one.
        pub profile_pic_url: String = "ProfilePicURL";
        /// Group names that policy makes visible.
        pub groups: Vec<String> = "Groups";
    }
}
