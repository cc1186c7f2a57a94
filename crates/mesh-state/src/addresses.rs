//! Giving out addresses, never one twice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_model::Tailnet;

use crate::{Allocation, Context, Refusal, Settings};

/// Addresses that clients or their hosts use for themselves: MagicDNS in both families, and what Chrome OS
/// gives its containers.
///
/// Source: headscale `db/ip.go`; tailscale `net/tsaddr`.
const RESERVED_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 100);
const RESERVED_V6: Ipv6Addr = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0x53);
const CHROME_OS: (Ipv4Addr, u8) = (Ipv4Addr::new(100, 115, 92, 0), 23);

/// How many addresses may be reserved in one prefix: Chrome OS's, MagicDNS's, the first and the last.
const RESERVED_MAX: u128 = 512 + 3;

/// Where the search for the next free address starts, as offsets into the prefixes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddressCursor {
    v4: u128,
    v6: u128,
}

impl Default for AddressCursor {
    fn default() -> Self {
        Self { v4: 1, v6: 1 }
    }
}

impl AddressCursor {
    /// Finds a free address in each family that the tailnet has.
    pub(crate) fn allocate(
        &mut self,
        tailnet: &Tailnet,
        settings: &Settings,
        context: &Context,
    ) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), Refusal> {
        if settings.allocation == Allocation::Random {
            self.v4 = u128::from(context.entropy);
            self.v6 =
                u128::from(context.entropy).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        }
        let v4 = settings.prefix_v4.map(|prefix| self.allocate_v4(tailnet, prefix)).transpose()?;
        let v6 = settings.prefix_v6.map(|prefix| self.allocate_v6(tailnet, prefix)).transpose()?;
        Ok((v4, v6))
    }

    fn allocate_v4(&mut self, tailnet: &Tailnet, prefix: Ipv4Net) -> Result<Ipv4Addr, Refusal> {
        let chrome_os =
            Ipv4Net::new(CHROME_OS.0, CHROME_OS.1).expect("invariant: a literal prefix");
        let base = u32::from(prefix.network());
        let size = 1_u128 << (32 - prefix.prefix_len());
        let address = |offset: u128| {
            Ipv4Addr::from(
                base + u32::try_from(offset).expect("invariant: the offset is below the size"),
            )
        };
        let offset = first_free(self.v4, size, tailnet.node_count(), |offset| {
            let candidate = address(offset);
            candidate != RESERVED_V4
                && !chrome_os.contains(&candidate)
                && tailnet.node_by_address(IpAddr::V4(candidate)).is_none()
        })
        .ok_or(Refusal::AddressesExhausted(IpNet::V4(prefix)))?;
        self.v4 = offset + 1;
        Ok(address(offset))
    }

    fn allocate_v6(&mut self, tailnet: &Tailnet, prefix: Ipv6Net) -> Result<Ipv6Addr, Refusal> {
        let base = u128::from(prefix.network());
        let size = 1_u128.checked_shl(128 - u32::from(prefix.prefix_len())).unwrap_or(u128::MAX);
        let offset = first_free(self.v6, size, tailnet.node_count(), |offset| {
            let candidate = Ipv6Addr::from(base + offset);
            candidate != RESERVED_V6 && tailnet.node_by_address(IpAddr::V6(candidate)).is_none()
        })
        .ok_or(Refusal::AddressesExhausted(IpNet::V6(prefix)))?;
        self.v6 = offset + 1;
        Ok(Ipv6Addr::from(base + offset))
    }
}

/// The first free offset at or after `start`, around the end of the prefix if need be; never the first or the
/// last of it. Looks at no more offsets than can be taken, so a full prefix ends the search.
fn first_free(
    start: u128,
    size: u128,
    nodes: usize,
    is_free: impl Fn(u128) -> bool,
) -> Option<u128> {
    let usable = size.checked_sub(2).filter(|usable| *usable > 0)?;
    let tries = usable.min(nodes as u128 + RESERVED_MAX + 1);
    (0..tries)
        .map(|step| 1 + (start.saturating_sub(1) % usable + step) % usable)
        .find(|offset| is_free(*offset))
}
