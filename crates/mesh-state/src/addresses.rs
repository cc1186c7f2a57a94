//! Giving out addresses, never one twice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_model::Tailnet;
use rpds::HashTrieMapSync;

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
#[derive(Debug, Clone)]
pub(crate) struct AddressCursor {
    v4: u128,
    v6: u128,
    /// The same for pools of the policy.
    pools: HashTrieMapSync<Ipv4Net, u128>,
}

impl Default for AddressCursor {
    fn default() -> Self {
        Self { v4: 1, v6: 1, pools: HashTrieMapSync::default() }
    }
}

impl AddressCursor {
    /// Finds a free address in each family that the tailnet has. With pools the IPv4 address comes from the first
    /// of them that has one.
    pub(crate) fn allocate(
        &mut self,
        tailnet: &Tailnet,
        settings: &Settings,
        pools: &[IpNet],
        context: &Context,
    ) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), Refusal> {
        if settings.allocation == Allocation::Random {
            self.v4 = u128::from(context.entropy);
            self.v6 =
                u128::from(context.entropy).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        }
        let v4 = match (settings.prefix_v4, pools) {
            (None, _) => None,
            (Some(prefix), []) => Some(self.allocate_v4(tailnet, prefix)?),
            (Some(_), pools) => Some(self.allocate_from_pools(tailnet, pools)?),
        };
        let v6 = settings.prefix_v6.map(|prefix| self.allocate_v6(tailnet, prefix)).transpose()?;
        Ok((v4, v6))
    }

    fn allocate_v4(&mut self, tailnet: &Tailnet, prefix: Ipv4Net) -> Result<Ipv4Addr, Refusal> {
        let offsets = 1..v4_size(prefix).saturating_sub(1);
        let offset = first_free(self.v4, offsets, tailnet.node_count(), |offset| {
            is_free_v4(tailnet, v4_at(prefix, offset))
        })
        .ok_or(Refusal::AddressesExhausted(IpNet::V4(prefix)))?;
        self.v4 = offset + 1;
        Ok(v4_at(prefix, offset))
    }

    /// Pools are lists of addresses: their first and last ones are as good as any.
    fn allocate_from_pools(
        &mut self,
        tailnet: &Tailnet,
        pools: &[IpNet],
    ) -> Result<Ipv4Addr, Refusal> {
        let v4 = pools.iter().filter_map(|pool| match pool {
            IpNet::V4(pool) => Some(pool.trunc()),
            IpNet::V6(_) => None,
        });
        for pool in v4 {
            let start = self.pools.get(&pool).copied().unwrap_or_default();
            let found = first_free(start, 0..v4_size(pool), tailnet.node_count(), |offset| {
                is_free_v4(tailnet, v4_at(pool, offset))
            });
            if let Some(offset) = found {
                self.pools.insert_mut(pool, offset + 1);
                return Ok(v4_at(pool, offset));
            }
        }
        Err(Refusal::PoolExhausted)
    }

    fn allocate_v6(&mut self, tailnet: &Tailnet, prefix: Ipv6Net) -> Result<Ipv6Addr, Refusal> {
        let base = u128::from(prefix.network());
        let size = 1_u128.checked_shl(128 - u32::from(prefix.prefix_len())).unwrap_or(u128::MAX);
        let offsets = 1..size.saturating_sub(1);
        let offset = first_free(self.v6, offsets, tailnet.node_count(), |offset| {
            let candidate = Ipv6Addr::from(base + offset);
            candidate != RESERVED_V6 && tailnet.node_by_address(IpAddr::V6(candidate)).is_none()
        })
        .ok_or(Refusal::AddressesExhausted(IpNet::V6(prefix)))?;
        self.v6 = offset + 1;
        Ok(Ipv6Addr::from(base + offset))
    }
}

fn v4_size(prefix: Ipv4Net) -> u128 {
    1 << (32 - prefix.prefix_len())
}

fn v4_at(prefix: Ipv4Net, offset: u128) -> Ipv4Addr {
    let offset = u32::try_from(offset).expect("invariant: the offset is below the size");
    Ipv4Addr::from(u32::from(prefix.network()) + offset)
}

fn is_free_v4(tailnet: &Tailnet, address: Ipv4Addr) -> bool {
    let chrome_os = Ipv4Net::new(CHROME_OS.0, CHROME_OS.1).expect("invariant: a literal prefix");
    address != RESERVED_V4
        && !chrome_os.contains(&address)
        && tailnet.node_by_address(IpAddr::V4(address)).is_none()
}

/// The first free one of some offsets at or after `start`, from their beginning again if need be. Looks at no more
/// than can be taken, so a full prefix ends the search.
fn first_free(
    start: u128,
    offsets: Range<u128>,
    nodes: usize,
    is_free: impl Fn(u128) -> bool,
) -> Option<u128> {
    let usable = offsets.end.checked_sub(offsets.start).filter(|usable| *usable > 0)?;
    let tries = usable.min(nodes as u128 + RESERVED_MAX + 1);
    let first = start.saturating_sub(offsets.start) % usable;
    (0..tries).map(|step| offsets.start + (first + step) % usable).find(|offset| is_free(*offset))
}
