//! Databases to test on, and things to put into them.

use std::env;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mesh_db::{Database, Options, PostgresOptions};
use mesh_keys::{DiscoPublic, NetworkLockPublic};
use mesh_model::{
    ApiKey, ApiKeyId, Hostinfo, Node, NodeId, Owner, PolicyVersion, PolicyVersionId, PreauthKey,
    PreauthKeyId, RegisterMethod, SecretHash, Tailnet, TailnetId, Timestamp, Tombstone, User,
    UserId,
};
use mesh_state::{Batch, Counters, Loaded, Write};
use mesh_store::{Persist as _, PersistError};
use mesh_testkit::{machine_key, node_key};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use tempfile::TempDir;

/// Names a Postgres server in which we may make schemas.
const POSTGRES_URL: &str = "MESHCONTROL_TEST_POSTGRES_URL";

pub(crate) const TAILNET: TailnetId = TailnetId(1);

/// An empty database of our own.
pub(crate) enum Scratch {
    Sqlite { folder: TempDir },
    Postgres { url: String, schema: String },
}

impl Scratch {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite { folder: tempfile::tempdir().unwrap() }
    }

    /// A schema of its own in the server that the environment names.
    pub(crate) async fn postgres() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("mesh_db_{}_{number}", process::id());
        let url = postgres_url();
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let sql = format!("CREATE SCHEMA {schema}");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        Self::Postgres { url, schema }
    }

    /// Removes what outlives the test.
    pub(crate) async fn remove(&self) {
        if let Self::Postgres { schema, .. } = self {
            self.execute(&format!("DROP SCHEMA {schema} CASCADE")).await;
        }
    }

    pub(crate) fn options(&self) -> Options {
        match self {
            Self::Sqlite { .. } => Options::Sqlite {
                path: self.path(),
                write_ahead_log: true,
                wal_autocheckpoint: 1000,
            },
            Self::Postgres { .. } => Options::Postgres(PostgresOptions::Url(self.url())),
        }
    }

    /// The file of an SQLite database.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Sqlite { folder } => folder.path().join("db.sqlite"),
            Self::Postgres { .. } => panic!("Postgres has no file of ours"),
        }
    }

    /// The URL of a Postgres database.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite { .. } => panic!("SQLite has no URL"),
            Self::Postgres { url, .. } => self.within(url),
        }
    }

    /// The URL of this database in the server at `url`.
    pub(crate) fn within(&self, url: &str) -> String {
        let Self::Postgres { schema, .. } = self else { panic!("SQLite has no URL") };
        let separator = if url.contains('?') { '&' } else { '?' };
        format!("{url}{separator}options[search_path]={schema}")
    }

    pub(crate) async fn open(&self) -> Database {
        Database::open(&self.options()).await.unwrap()
    }

    /// Carries out SQL behind the database's back.
    pub(crate) async fn execute(&self, sql: &str) {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Sqlite { .. } => {
                sql.execute(&mut self.sqlite_connection().await).await.unwrap();
            }
            Self::Postgres { .. } => {
                sql.execute(&mut self.postgres_connection().await).await.unwrap();
            }
        }
    }

    /// All rows of a query whose columns are numbers.
    pub(crate) async fn numbers(&self, sql: &str) -> Vec<Vec<i64>> {
        macro_rules! all {
            ($connection:expr) => {
                sqlx::query(AssertSqlSafe(sql.to_owned()))
                    .fetch_all(&mut $connection)
                    .await
                    .unwrap()
                    .iter()
                    .map(|row| (0..row.len()).map(|index| row.get(index)).collect())
                    .collect()
            };
        }
        match self {
            Self::Sqlite { .. } => all!(self.sqlite_connection().await),
            Self::Postgres { .. } => all!(self.postgres_connection().await),
        }
    }

    pub(crate) async fn sqlite_connection(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path()).create_if_missing(true);
        options.connect().await.unwrap()
    }

    pub(crate) async fn postgres_connection(&self) -> PgConnection {
        PgConnectOptions::from_str(&self.url()).unwrap().connect().await.unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "`cargo xtask` names the server")]
pub(crate) fn postgres_url() -> String {
    env::var(POSTGRES_URL).unwrap_or_else(|_| {
        panic!("{POSTGRES_URL} names no Postgres server: `cargo xtask test` starts one and sets it")
    })
}

/// A batch that makes a revision of tailnet 1.
pub(crate) fn batch(revision: u64, writes: impl Into<Vec<Write>>) -> Batch {
    Batch {
        tailnet: TAILNET,
        revision,
        counters: Counters::default(),
        writes: writes.into(),
        change: "{}".to_owned(),
        at: at(revision.cast_signed()),
    }
}

/// Commits writes as the next revision.
pub(crate) async fn commit(
    database: &Database,
    writes: impl Into<Vec<Write>>,
) -> Result<(), PersistError> {
    let revision = load(database).await.revision + 1;
    database.commit(&batch(revision, writes)).await
}

/// Commits writes that must be refused, and says why they were. Nothing of them may be there.
pub(crate) async fn refusal(database: &Database, writes: impl Into<Vec<Write>>) -> String {
    let before = load(database).await;
    let error = commit(database, writes).await.unwrap_err();
    let after = load(database).await;
    assert_eq!(contents(&before.tailnet), contents(&after.tailnet));
    assert_eq!(before.revision, after.revision);
    match error {
        PersistError::Conflict { what } => what,
        other @ (PersistError::Overtaken | PersistError::Unavailable(_)) => {
            panic!("not a refusal: {other}")
        }
    }
}

pub(crate) async fn load(database: &Database) -> Loaded {
    database.load(TAILNET).await.unwrap()
}

/// All that a tailnet holds on disk.
#[derive(Debug, PartialEq)]
pub(crate) struct Contents {
    pub(crate) users: Vec<User>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) preauth_keys: Vec<PreauthKey>,
    pub(crate) api_keys: Vec<ApiKey>,
    pub(crate) tombstones: Vec<Tombstone>,
    pub(crate) policy_versions: Vec<PolicyVersion>,
}

pub(crate) fn contents(tailnet: &Tailnet) -> Contents {
    let offline = |node: &Arc<Node>| Node { session: None, ..Node::clone(node) };
    Contents {
        users: tailnet.users().map(|user| User::clone(user)).collect(),
        nodes: tailnet.nodes().map(offline).collect(),
        preauth_keys: tailnet.preauth_keys().map(|key| PreauthKey::clone(key)).collect(),
        api_keys: tailnet.api_keys().map(|key| ApiKey::clone(key)).collect(),
        tombstones: tailnet.tombstones().copied().collect(),
        policy_versions: tailnet
            .policy_versions()
            .map(|version| PolicyVersion::clone(version))
            .collect(),
    }
}

pub(crate) fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap()
}

pub(crate) fn user(id: u64) -> User {
    User {
        id: UserId(id),
        name: format!("user{id}"),
        display_name: String::new(),
        email: String::new(),
        profile_pic_url: String::new(),
        provider: String::new(),
        provider_id: String::new(),
        created_at: at(0),
    }
}

/// A node of user 1 that shares nothing with the node of another id.
pub(crate) fn node(id: u32) -> Node {
    Node {
        id: NodeId(id),
        machine_key: machine_key(id.into()),
        node_key: node_key(id.into()),
        previous_node_key: None,
        disco_key: DiscoPublic::default(),
        network_lock_key: NetworkLockPublic::default(),
        hostinfo: Hostinfo::default(),
        given_name: format!("node{id}"),
        name_is_chosen: false,
        ipv4: Some(Ipv4Addr::from_bits(0x6440_0000 ^ id)),
        ipv6: Some(Ipv6Addr::from_bits(0xfd7a_115c_a1e0 << 80 | u128::from(id))),
        owner: Owner::User(UserId(1)),
        register_method: RegisterMethod::AuthKey,
        preauth_key: None,
        ephemeral: false,
        capability_version: 100,
        endpoints: Vec::new(),
        home_derp: None,
        approved_routes: Vec::new(),
        created_at: at(0),
        expires_at: None,
        last_seen_at: None,
        session: None,
    }
}

pub(crate) fn preauth_key(id: u64) -> PreauthKey {
    PreauthKey {
        id: PreauthKeyId(id),
        public_id: format!("public{id}"),
        hash: SecretHash("$argon2id$".to_owned()),
        user: Some(UserId(1)),
        tags: Vec::new(),
        reusable: false,
        ephemeral: false,
        used_at: None,
        used_by: None,
        expires_at: None,
        revoked_at: None,
        created_at: at(0),
    }
}

pub(crate) fn api_key(id: u64) -> ApiKey {
    ApiKey {
        id: ApiKeyId(id),
        public_id: format!("public{id}"),
        hash: SecretHash("$argon2id$".to_owned()),
        expires_at: None,
        created_at: at(0),
        last_seen_at: None,
    }
}

pub(crate) fn tombstone(number: u64) -> Tombstone {
    Tombstone {
        machine_key: machine_key(number),
        node_key: node_key(number),
        home_derp: None,
        deleted_at: at(0),
    }
}

pub(crate) fn policy_version(id: u64) -> PolicyVersion {
    PolicyVersion {
        id: PolicyVersionId(id),
        text: String::new(),
        digest: String::new(),
        created_by: String::new(),
        created_at: at(0),
    }
}

pub(crate) fn put_user(user: User) -> Write {
    Write::PutUser(Arc::new(user))
}

pub(crate) fn put_node(node: Node) -> Write {
    Write::PutNode(Arc::new(node))
}

pub(crate) fn put_preauth_key(key: PreauthKey) -> Write {
    Write::PutPreauthKey(Arc::new(key))
}

pub(crate) fn put_policy(version: PolicyVersion) -> Write {
    Write::PutPolicy(Arc::new(version))
}

pub(crate) fn put_api_key(key: ApiKey) -> Write {
    Write::PutApiKey(Arc::new(key))
}
