//! Fuzz targets for every parser of what a peer, an operator or a stranger can send.
//!
//! A target is a function of bytes that must return: no panic, no overflow, no endless loop. Where a law is
//! at hand (what is encoded reads back the same, what was changed does not authenticate), the target
//! asserts it. Each has a folder of seeds in `corpus/`; `cargo test` runs all seeds once,
//! `cargo xtask fuzz` searches on from there.

mod compile;
mod config;
mod derp;
mod disco;
mod filter;
mod json;
mod keys;
mod netmap;
mod noise;
mod policy;
mod portmap;
mod relay;
mod secrets;
mod tcp;
mod wireguard;

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line, and that of its folder of seeds.
    pub name: &'static str,
    /// Runs it on one input; panics when the input shows a bug.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 23] = [
    Target { name: "handshake", run: noise::handshake },
    Target { name: "record", run: noise::record },
    Target { name: "register", run: json::register },
    Target { name: "map", run: json::map },
    Target { name: "derp-frames", run: derp::frames },
    Target { name: "derp-login", run: derp::login },
    Target { name: "derp-mesh", run: relay::mesh },
    Target { name: "derp-door", run: relay::door },
    Target { name: "websocket", run: relay::websocket },
    Target { name: "stun", run: derp::stun },
    Target { name: "stun-response", run: derp::stun_response },
    Target { name: "disco", run: disco::disco },
    Target { name: "filter-packet", run: filter::packet },
    Target { name: "filter-rules", run: filter::rules },
    Target { name: "wireguard", run: wireguard::wireguard },
    Target { name: "tcp", run: tcp::tcp },
    Target { name: "portmap", run: portmap::portmap },
    Target { name: "map-fold", run: netmap::map_fold },
    Target { name: "config", run: config::config },
    Target { name: "policy", run: policy::policy },
    Target { name: "compile", run: compile::compile },
    Target { name: "keys", run: keys::keys },
    Target { name: "preauth-key", run: secrets::preauth_key },
];

/// The target called `name`.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

#[cfg(test)]
mod tests;
