//! The tables: which field of the model is in which column. The columns are in this order everywhere.

use mesh_model::{ApiKey, Node, PolicyVersion, PreauthKey, Tombstone, User};

use crate::record::{Field, ReadError, Reader, Record, Row, Table, Unfit};

/// Makes a model type a [`Record`], from one list of its fields. A field is in the column of its own name
/// unless others are given; what is not stored gets its value after `..`.
macro_rules! table {
    (
        $name:literal of $model:ident, key [$($key:literal),+],
        { $($field:ident $(as [$($column:literal),+])?),+ $(,)? }
        $(.. { $($absent:ident: $value:expr),+ })?
    ) => {
        impl Record for $model {
            const TABLE: &'static Table = &Table {
                name: $name,
                key: &["tailnet", $($key),+],
                columns: table!(@columns ["tailnet"] $($field $(as [$($column),+])?),+),
            };

            fn write(&self, row: &mut Row) -> Result<(), Unfit> {
                $(Field::write(&self.$field, row)?;)+
                Ok(())
            }

            fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
                Ok(Self { $($field: Field::read(reader)?,)+ $($($absent: $value),+)? })
            }
        }
    };
    (@columns [$($done:expr),*] $field:ident as [$($column:literal),+] $(, $($rest:tt)+)?) => {
        table!(@columns [$($done,)* $($column),+] $($($rest)+)?)
    };
    (@columns [$($done:expr),*] $field:ident $(, $($rest:tt)+)?) => {
        table!(@columns [$($done,)* stringify!($field)] $($($rest)+)?)
    };
    (@columns [$($done:expr),*]) => { &[$($done),*] };
}

table!("users" of User, key ["id"], {
    id,
    name,
    display_name,
    email,
    profile_pic_url,
    provider,
    provider_id,
    created_at,
});

table!("node" of Node, key ["id"], {
    id,
    machine_key,
    node_key,
    previous_node_key,
    disco_key,
    network_lock_key,
    hostinfo,
    given_name,
    name_is_chosen,
    ipv4,
    ipv6,
    owner as ["user_id", "tags"],
    register_method,
    preauth_key as ["preauth_key_id"],
    ephemeral,
    capability_version,
    endpoints,
    home_derp,
    approved_routes,
    created_at,
    expires_at,
    last_seen_at,
} .. { session: None });

table!("preauth_key" of PreauthKey, key ["id"], {
    id,
    public_id,
    hash,
    user as ["user_id"],
    tags,
    reusable,
    ephemeral,
    used_at,
    used_by,
    expires_at,
    revoked_at,
    created_at,
});

table!("api_key" of ApiKey, key ["id"], {
    id,
    public_id,
    hash,
    expires_at,
    created_at,
    last_seen_at,
});

table!("tombstone" of Tombstone, key ["machine_key", "node_key"], {
    machine_key,
    node_key,
    home_derp,
    deleted_at,
});

table!("policy" of PolicyVersion, key ["id"], {
    id,
    text,
    digest,
    created_by,
    created_at,
});
