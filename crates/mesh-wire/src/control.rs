//! Parts of a map response that steer the client itself.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, `Debug`, `DisplayMessage`, `ClientVersion`, `ControlDialPlan`; `tka.go`.

use std::convert::Infallible;
use std::net::IpAddr;

use serde::Serialize;

use crate::codec::{text, wire_struct};

wire_struct! {
    /// Orders to the client; none is sticky but `disable_log_tail`.
    pub struct Debug {
        /// Seconds to sleep before reading on, at most five minutes.
        pub sleep_seconds: f64 = "SleepSeconds";
        /// Stops uploads to Tailscale's log server, for the life of the process.
        pub disable_log_tail: bool = "DisableLogTail";
        /// Ends the process with this code.
        pub exit: Option<i32> = "Exit";
    }
}

wire_struct! {
    /// A health message for the user.
    pub struct DisplayMessage {
        /// One short line without full stop.
        pub title: String = "Title" (always);
        /// Some sentences.
        pub text: String = "Text" (always);
        /// How loud.
        pub severity: DisplayMessageSeverity = "Severity" (always);
        /// Whether connections suffer.
        pub impacts_connectivity: bool = "ImpactsConnectivity";
        /// A button.
        pub primary_action: Option<DisplayMessageAction> = "PrimaryAction";
    }
}

wire_struct! {
    /// A button with a link.
    pub struct DisplayMessageAction {
        /// `https`, or the client drops the button.
        pub url: String = "URL" (always);
        /// What is written on it.
        pub label: String = "Label" (always);
    }
}

/// How loud a [`DisplayMessage`] is. What a client does not know it takes for medium, and so do we.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DisplayMessageSeverity {
    /// Pops up.
    High,
    /// Seen without opening anything.
    #[default]
    Medium,
    /// Seen by those who look for it.
    Low,
}

impl DisplayMessageSeverity {
    fn from_text(text: &str) -> Self {
        match text {
            "high" => Self::High,
            "low" => Self::Low,
            _ => Self::Medium,
        }
    }
}

text! {
    DisplayMessageSeverity,
        |text| Ok::<_, Infallible>(Some(Self::from_text(text))),
        |_severity| false;
}

wire_struct! {
    /// What the client may be told of newer versions of itself.
    pub struct ClientVersion {
        /// Whether it runs the newest; then the rest is empty.
        pub running_latest: bool = "RunningLatest";
        /// The newest version.
        pub latest_version: String = "LatestVersion";
        /// Whether the update closes a hole.
        pub urgent_security_update: bool = "UrgentSecurityUpdate";
        /// Whether to notify the user.
        pub notify: bool = "Notify";
        /// What the notification opens.
        pub notify_url: String = "NotifyURL";
        /// What it says.
        pub notify_text: String = "NotifyText";
    }
}

wire_struct! {
    /// Where to dial the server next time; no candidates is by DNS alone.
    pub struct ControlDialPlan {
        /// The candidates.
        pub candidates: Vec<ControlIpCandidate> = "Candidates" (always);
    }
}

wire_struct! {
    /// One way to dial the server.
    pub struct ControlIpCandidate {
        /// Address to dial.
        pub ip: Option<IpAddr> = "IP";
        /// Proxy to dial through.
        pub ace_host: String = "ACEHost";
        /// Seconds to wait before.
        pub dial_start_delay_sec: f64 = "DialStartDelaySec";
        /// Seconds to try; zero gives up at once, so it is always set.
        pub dial_timeout_sec: f64 = "DialTimeoutSec";
        /// Among those that answer the highest wins.
        pub priority: i64 = "Priority";
    }
}

wire_struct! {
    /// State of tailnet lock, sticky in a session.
    pub struct TkaInfo {
        /// Hash of the newest update; empty when off.
        pub head: String = "Head";
        /// Whether it was turned off, and the client shall forget its state.
        pub disabled: bool = "Disabled";
    }
}
