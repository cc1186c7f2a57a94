//! `nodeAttrs` and `autoApprovers`.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::Decoder;
use super::selectors::{Place, parse_prefix};
use crate::hujson::Read;
use crate::policy::NodeAttributes;
use crate::problem::quoted;

const NODE_ATTRS: &[&str] = &["target", "attr", "app", "ipPool"];
const AUTO_APPROVERS: &[&str] = &["routes", "exitNode"];

/// Networks inside the CGNAT range that belong to services and to the virtual machines of `ChromeOS`.
const RESERVED: [Ipv4Net; 2] = [
    Ipv4Net::new_assert(Ipv4Addr::new(100, 100, 100, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 115, 92, 0), 23),
];

impl Decoder<'_> {
    pub(super) fn node_attrs(&mut self) -> Read<()> {
        self.policy.node_attrs = self.rules(Self::node_attributes)?;
        Ok(())
    }

    fn node_attributes(&mut self, line: u32) -> Read<NodeAttributes> {
        let mut entry = NodeAttributes {
            line,
            target: Vec::new(),
            attr: Vec::new(),
            app: Vec::new(),
            ip_pool: Vec::new(),
        };
        self.fields(NODE_ATTRS, |decoder, name| {
            match name {
                "target" => entry.target = decoder.selectors(Place::Target)?,
                "attr" => entry.attr = decoder.plain_texts()?,
                "app" => entry.app = decoder.capabilities(|_| Ok(()), &mut 0)?,
                _ => entry.ip_pool = decoder.ip_pool()?,
            }
            Ok(())
        })?;
        Ok(entry)
    }

    fn ip_pool(&mut self) -> Read<Vec<IpNet>> {
        self.texts(|decoder, text| {
            parse_pool(&text).map_err(|message| decoder.refuse(message)).ok()
        })
    }

    pub(super) fn auto_approvers(&mut self) -> Read<()> {
        self.fields(AUTO_APPROVERS, |decoder, name| {
            if name == "exitNode" {
                let approvers = decoder.selectors(Place::Approver)?;
                decoder.policy.auto_approvers.exit_node = approvers;
                return Ok(());
            }
            let mut seen = std::collections::HashSet::new();
            decoder.map(|decoder, route| {
                let prefix = parse_prefix(&route).filter(|_| route.contains('/'));
                if prefix.is_none() {
                    decoder.refuse(format!("a route is a CIDR, got: {}", quoted(&route)));
                }
                if !seen
                    .insert(prefix.map_or_else(|| route.to_string(), |prefix| prefix.to_string()))
                {
                    decoder.refuse_duplicate(&route);
                }
                let approvers = decoder.optional_selectors(Place::Approver)?;
                let routes = &mut decoder.policy.auto_approvers.routes;
                routes.extend(prefix.map(|prefix| (prefix.trunc(), approvers)));
                Ok(())
            })
        })
    }
}

fn parse_pool(text: &str) -> Result<IpNet, String> {
    let pool = match parse_prefix(text) {
        Some(IpNet::V4(pool)) => pool,
        Some(IpNet::V6(_)) | None => {
            return Err(format!(
                "IPPool({text}): it has to be an IPv4 network such as 100.81.0.0/16"
            ));
        }
    };
    let overlaps = |reserved: &Ipv4Net| reserved.contains(&pool) || pool.contains(reserved);
    if RESERVED.iter().any(overlaps) {
        return Err(format!("IPPool({text}): network within reserved range"));
    }
    Ok(IpNet::V4(pool))
}
