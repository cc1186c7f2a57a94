//! Tailscale SSH: who may log in to the node as whom. The names are lower camel here, unlike elsewhere.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, `SSHPolicy` and what it holds.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;

use crate::codec::wire_struct;

wire_struct! {
    /// Rules in order; the first that matches decides, and none denies.
    pub struct SshPolicy {
        /// The rules; an empty list denies all.
        pub rules: Vec<SshRule> = "rules" (always);
    }
}

wire_struct! {
    /// Who may log in, as whom, and what then happens.
    pub struct SshRule {
        /// When the rule ends.
        pub rule_expires: Option<Timestamp> = "ruleExpires";
        /// Who; any one suffices.
        pub principals: Vec<SshPrincipal> = "principals" (always);
        /// Requested user, or `*`, to local user; `=` is the same name, but never root.
        pub ssh_users: BTreeMap<String, String> = "sshUsers" (always);
        /// What happens; a rule without denies.
        pub action: Option<SshAction> = "action";
        /// Environment variables that may be set, as globs. Needs attribute `ssh-env-vars`.
        pub accept_env: Vec<String> = "acceptEnv";
    }
}

wire_struct! {
    /// A source; the first field that is set counts.
    pub struct SshPrincipal {
        /// Stable id of a node.
        pub node: String = "node";
        /// Address of a node.
        pub node_ip: String = "nodeIP";
        /// Login name of the source's owner.
        pub user_login: String = "userLogin";
        /// Everybody.
        pub any: bool = "any";
    }
}

wire_struct! {
    /// What a rule does, and what a hold-and-delegate URL answers.
    pub struct SshAction {
        /// Text shown to the user.
        pub message: String = "message";
        /// Whether to refuse.
        pub reject: bool = "reject";
        /// Whether to let in.
        pub accept: bool = "accept";
        /// Longest session in nanoseconds; zero is without end.
        pub session_duration_ns: i64 = "sessionDuration";
        /// Whether agent forwarding is allowed.
        pub allow_agent_forwarding: bool = "allowAgentForwarding";
        /// `https://` URL that decides; fetched over Noise, and its answer is again an action.
        pub hold_and_delegate: String = "holdAndDelegate";
        /// Whether the client may forward local ports.
        pub allow_local_port_forwarding: bool = "allowLocalPortForwarding";
        /// Whether the client may forward remote ports.
        pub allow_remote_port_forwarding: bool = "allowRemotePortForwarding";
        /// Where sessions are recorded.
        pub recorders: Vec<SocketAddr> = "recorders";
        /// What happens when recording fails.
        pub on_recording_failure: Option<SshRecorderFailureAction> = "onRecordingFailure";
    }
}

wire_struct! {
    /// What happens when a session cannot be recorded. These names are Go's again.
    pub struct SshRecorderFailureAction {
        /// Refuse new sessions with this text, if not empty.
        pub reject_session_with_message: String = "RejectSessionWithMessage";
        /// End running sessions with this text, if not empty.
        pub terminate_session_with_message: String = "TerminateSessionWithMessage";
        /// `https://` URL to tell over Noise.
        pub notify_url: String = "NotifyURL";
    }
}
