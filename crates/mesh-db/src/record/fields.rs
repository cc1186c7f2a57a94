//! The types of the model's fields, and how each is kept in a column.

use std::net::{Ipv4Addr, Ipv6Addr};

use mesh_keys::{DiscoPublic, MachinePublic, NetworkLockPublic, NodePublic};
use mesh_model::{
    ApiKeyId, Hostinfo, NodeId, Owner, PolicyVersionId, PreauthKeyId, RegisterMethod, SecretHash,
    TailnetId, Timestamp, UserId,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Column, Field, ReadError, Reader, Row, Unfit};

/// Two columns: a user's id, and tags as JSON. One of them says something.
impl Field for Owner {
    fn write(&self, row: &mut Row) -> Result<(), Unfit> {
        let (user, tags) = match self {
            Self::User(user) => (Some(*user), &Vec::new()),
            Self::Tags(tags) => (None, tags),
        };
        user.write(row)?;
        tags.write(row)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        let user: Option<UserId> = Field::read(reader)?;
        let tags = Vec::read(reader)?;
        match (user, tags.is_empty()) {
            (Some(user), true) => Ok(Self::User(user)),
            (None, false) => Ok(Self::Tags(tags)),
            (Some(_), false) => Err(reader.error("a node of a user has no tags")),
            (None, true) => Err(reader.error("a node without a user has tags")),
        }
    }
}

/// Columns of ids and other unsigned numbers.
macro_rules! number_columns {
    ($($type:ty: $number:ty, $wrap:expr, $unwrap:expr;)*) => {$(
        impl Column for $type {
            type Raw = i64;

            fn to_raw(&self) -> Result<i64, Unfit> {
                let number: $number = $unwrap(self);
                i64::try_from(number).map_err(|_| Unfit::TooLarge(number.into()))
            }

            fn from_raw(raw: i64) -> Result<Self, String> {
                let number = <$number>::try_from(raw).map_err(|error| format!("{raw}: {error}"))?;
                Ok($wrap(number))
            }
        }
    )*};
}

number_columns! {
    u32: u32, |number| number, |number: &u32| *number;
    u64: u64, |number| number, |number: &u64| *number;
    NodeId: u32, NodeId, |id: &NodeId| id.0;
    TailnetId: u64, TailnetId, |id: &TailnetId| id.0;
    UserId: u64, UserId, |id: &UserId| id.0;
    PreauthKeyId: u64, PreauthKeyId, |id: &PreauthKeyId| id.0;
    ApiKeyId: u64, ApiKeyId, |id: &ApiKeyId| id.0;
    PolicyVersionId: u64, PolicyVersionId, |id: &PolicyVersionId| id.0;
}

/// Columns of types that have a text form.
macro_rules! text_columns {
    ($($type:ty),*) => {$(
        impl Column for $type {
            type Raw = String;

            fn to_raw(&self) -> Result<String, Unfit> {
                Ok(self.to_string())
            }

            fn from_raw(raw: String) -> Result<Self, String> {
                raw.parse::<Self>().map_err(|error| error.to_string())
            }
        }
    )*};
}

text_columns!(MachinePublic, NodePublic, DiscoPublic, NetworkLockPublic, Ipv4Addr, Ipv6Addr);

impl Column for i64 {
    type Raw = i64;

    fn to_raw(&self) -> Result<i64, Unfit> {
        Ok(*self)
    }

    fn from_raw(raw: i64) -> Result<Self, String> {
        Ok(raw)
    }
}

impl Column for bool {
    type Raw = bool;

    fn to_raw(&self) -> Result<bool, Unfit> {
        Ok(*self)
    }

    fn from_raw(raw: bool) -> Result<Self, String> {
        Ok(raw)
    }
}

impl Column for String {
    type Raw = String;

    fn to_raw(&self) -> Result<String, Unfit> {
        if self.contains('\0') { Err(Unfit::Nul) } else { Ok(self.clone()) }
    }

    fn from_raw(raw: String) -> Result<Self, String> {
        Ok(raw)
    }
}

impl Column for SecretHash {
    type Raw = String;

    fn to_raw(&self) -> Result<String, Unfit> {
        self.0.to_raw()
    }

    fn from_raw(raw: String) -> Result<Self, String> {
        Ok(Self(raw))
    }
}

impl Column for Timestamp {
    type Raw = i64;

    fn to_raw(&self) -> Result<i64, Unfit> {
        let milliseconds = self.as_millisecond();
        Self::from_millisecond(milliseconds).map_err(|_| Unfit::TooLate(*self))?;
        Ok(milliseconds)
    }

    fn from_raw(raw: i64) -> Result<Self, String> {
        Self::from_millisecond(raw).map_err(|error| error.to_string())
    }
}

impl Column for RegisterMethod {
    type Raw = String;

    fn to_raw(&self) -> Result<String, Unfit> {
        let text = match self {
            Self::AuthKey => "authkey",
            Self::Cli => "cli",
            Self::Oidc => "oidc",
        };
        Ok(text.to_owned())
    }

    fn from_raw(raw: String) -> Result<Self, String> {
        match raw.as_str() {
            "authkey" => Ok(Self::AuthKey),
            "cli" => Ok(Self::Cli),
            "oidc" => Ok(Self::Oidc),
            _ => Err(format!("`{raw}` is none of `authkey`, `cli`, `oidc`")),
        }
    }
}

/// A list as JSON.
impl<T: Serialize + DeserializeOwned> Column for Vec<T> {
    type Raw = String;

    fn to_raw(&self) -> Result<String, Unfit> {
        Ok(to_json(self))
    }

    fn from_raw(raw: String) -> Result<Self, String> {
        from_json(&raw)
    }

    fn from_null() -> Option<Self> {
        Some(Self::default())
    }
}

impl Column for Hostinfo {
    type Raw = String;

    fn to_raw(&self) -> Result<String, Unfit> {
        Ok(to_json(self))
    }

    fn from_raw(raw: String) -> Result<Self, String> {
        from_json(&raw)
    }

    fn from_null() -> Option<Self> {
        Some(Self::default())
    }
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("invariant: the model has string keys only")
}

/// Reads JSON; nothing and `null` are the default, for every tool has its own idea of an empty column.
fn from_json<T: DeserializeOwned + Default>(text: &str) -> Result<T, String> {
    if text.is_empty() {
        return Ok(T::default());
    }
    let value: Option<T> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(value.unwrap_or_default())
}
