//! Why connections are refused or cut that do not behave.

/// Why a relay ended a connection. Who is not admitted and who takes in nothing has a counter of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// More connections came than are accepted.
    AcceptRate = 0,
    /// It had not logged in, and its place went to a newcomer.
    Displaced = 1,
    /// TLS handshake, request or login were not there in time.
    Timeout = 2,
    /// What came is not TLS, or none that both can.
    Tls = 3,
    /// What came is not HTTP/1, or a request too long.
    Http = 4,
    /// A login that proves no key.
    Login = 5,
    /// A frame that nobody may send, or not this client.
    Frame = 6,
    /// A WebSocket against its protocol, or with text.
    WebSocket = 7,
}

impl Refusal {
    /// All reasons.
    pub const ALL: [Self; 8] = [
        Self::AcceptRate,
        Self::Displaced,
        Self::Timeout,
        Self::Tls,
        Self::Http,
        Self::Login,
        Self::Frame,
        Self::WebSocket,
    ];

    /// The reason as a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::AcceptRate => "accept_rate",
            Self::Displaced => "displaced",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Login => "login",
            Self::Frame => "frame",
            Self::WebSocket => "websocket",
        }
    }
}
