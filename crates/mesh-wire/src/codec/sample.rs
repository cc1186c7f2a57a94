//! Arbitrary values of every wire type, for properties: `wire_struct!` derives them, one seed makes one value.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use mesh_keys::{
    ChallengePublic, DiscoPublic, KEY_BYTES, MachinePublic, NetworkLockPublic, NodePublic,
};
use serde_json::{Value, json};

use crate::{
    Base64, CapabilityVersion, DerpRegionId, DisplayMessageSeverity, EndpointType, LoginId, NodeId,
    RawJson, SecretText, UserId,
};

/// Numbers that follow from a seed (`SplitMix64`).
pub(crate) struct Source(u64);

impl Source {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next().to_le_bytes()[0])
    }
}

/// A type of which values can be made up.
pub(crate) trait Sample: Sized {
    fn sample(from: &mut Source) -> Self;
}

macro_rules! sample {
    ($($ty:ty, |$from:ident| $value:expr;)*) => {$(
        impl Sample for $ty {
            fn sample($from: &mut Source) -> Self {
                $value
            }
        }
    )*};
}

sample! {
    bool, |from| from.below(2) == 1;
    u16, |from| u16::from_le_bytes(from.bytes());
    u64, |from| from.below(1 << 53);
    i32, |from| i32::from_le_bytes(from.bytes());
    i64, |from| i64::from_le_bytes(from.bytes());
    // Quarters: every one of them has a short decimal text.
    f64, |from| f64::from(i16::from_le_bytes(from.bytes())) / 4.0;
    String, |from| text(from).to_owned();
    Value, |from| json(from);
    RawJson, |from| json(from).into();
    // Milliseconds between 1970 and 2100.
    Timestamp, |from| {
        let millisecond = i64::try_from(from.below(4_102_444_800_000)).unwrap();
        Timestamp::from_millisecond(millisecond).unwrap()
    };
    Ipv4Addr, |from| from.bytes::<4>().into();
    Ipv6Addr, |from| from.bytes::<16>().into();
    IpAddr, |from| if bool::sample(from) {
        Ipv4Addr::sample(from).into()
    } else {
        Ipv6Addr::sample(from).into()
    };
    IpNet, |from| {
        let address = IpAddr::sample(from);
        let length = u8::try_from(from.below(33)).unwrap();
        IpNet::new(address, length).unwrap()
    };
    SocketAddr, |from| SocketAddr::new(IpAddr::sample(from), u16::sample(from));
    NodePublic, |from| Self::from_bytes(from.bytes::<KEY_BYTES>());
    MachinePublic, |from| Self::from_bytes(from.bytes::<KEY_BYTES>());
    DiscoPublic, |from| Self::from_bytes(from.bytes::<KEY_BYTES>());
    NetworkLockPublic, |from| Self::from_bytes(from.bytes::<KEY_BYTES>());
    ChallengePublic, |from| Self::from_bytes(from.bytes::<KEY_BYTES>());
    NodeId, |from| Self(u64::sample(from));
    UserId, |from| Self(u64::sample(from));
    LoginId, |from| Self(u64::sample(from));
    DerpRegionId, |from| Self(u32::from(u16::sample(from)));
    CapabilityVersion, |from| Self(u32::from(u16::sample(from)));
    EndpointType, |from| Self(i32::sample(from));
    Base64, |from| Self(from.bytes::<7>()[..usize::try_from(from.below(8)).unwrap()].to_vec());
    SecretText, |from| Self(String::sample(from));
    DisplayMessageSeverity, |from| match from.below(3) {
        0 => Self::High,
        1 => Self::Medium,
        _ => Self::Low,
    };
}

fn text(from: &mut Source) -> &'static str {
    let texts =
        ["", "", "a", "host-7", "tag:web", "100.64.0.1", "<&>", "zwölf 十二", "a\"b\\c\n", "null"];
    texts[usize::try_from(from.below(10)).unwrap()]
}

fn json(from: &mut Source) -> Value {
    match from.below(6) {
        0 => Value::Null,
        1 => bool::sample(from).into(),
        2 => i64::sample(from).into(),
        3 => text(from).into(),
        4 => json!([text(from), json(from)]),
        _ => json!({ text(from): json(from) }),
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(from: &mut Source) -> Self {
        bool::sample(from).then(|| T::sample(from))
    }
}

impl<T: Sample> Sample for Box<T> {
    fn sample(from: &mut Source) -> Self {
        Self::new(T::sample(from))
    }
}

impl<T: Sample> Sample for Arc<T> {
    fn sample(from: &mut Source) -> Self {
        Self::new(T::sample(from))
    }
}

impl Sample for Arc<str> {
    fn sample(from: &mut Source) -> Self {
        String::sample(from).into()
    }
}

impl<T: Sample> Sample for Arc<[T]> {
    fn sample(from: &mut Source) -> Self {
        Vec::sample(from).into()
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(from: &mut Source) -> Self {
        (0..from.below(3)).map(|_| T::sample(from)).collect()
    }
}

impl<K: Sample + Ord, V: Sample> Sample for BTreeMap<K, V> {
    fn sample(from: &mut Source) -> Self {
        (0..from.below(3)).map(|_| (K::sample(from), V::sample(from))).collect()
    }
}
