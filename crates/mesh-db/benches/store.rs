//! Durable registrations per second, in batches of 1, 32 and 256, on both engines: each registers a machine
//! with a single-use key of its own, through the state and into the database, and counts once its batch is
//! committed. Then how long such a tailnet takes to load. On a machine that does other things too, the
//! processor time of our own process tells more than the clock; Postgres' own is not in it.

#![expect(clippy::print_stdout, reason = "the table is the bench's result")]

use std::env;
use std::fs;
use std::time::{Duration, Instant};

use mesh_db::{Database, Options, PostgresOptions};
use mesh_model::{Hostinfo, PreauthKeyId, SecretHash, Service, TailnetId, Timestamp, UserId};
use mesh_state::{Command, Registration, Settings, State};
use mesh_store::Persist as _;
use mesh_testkit::{context, new_preauth_key, new_user, registration};
use tokio::runtime::Runtime;

/// Names the Postgres server. The bench leaves tables of its own there.
const POSTGRES_URL: &str = "MESHCONTROL_TEST_POSTGRES_URL";

/// Commands per batch.
const BATCHES: [usize; 3] = [1, 32, 256];

/// How long each figure is measured.
const MEASURED: Duration = Duration::from_secs(5);

/// The same under `cargo test`, which only wants to know that it runs.
const MEASURED_IN_TEST: Duration = Duration::from_millis(50);

fn main() {
    let measured =
        if env::args().any(|argument| argument == "--bench") { MEASURED } else { MEASURED_IN_TEST };
    let folder = tempfile::tempdir().expect("a scratch directory");
    let sqlite = Options::Sqlite {
        path: folder.path().join("db.sqlite"),
        write_ahead_log: true,
        wal_autocheckpoint: 10_000,
    };
    let postgres = Options::Postgres(PostgresOptions::Url(postgres_url()));
    let runtime = Runtime::new().expect("a runtime");
    println!("| engine | batch | registrations/s | ms/commit | of which state | CPU | load |");
    println!("|---|---|---|---|---|---|---|");
    for (engine, options) in [("SQLite", &sqlite), ("Postgres", &postgres)] {
        runtime.block_on(measure_all(engine, options, measured));
    }
}

#[expect(clippy::disallowed_methods, reason = "`cargo xtask` names the server")]
fn postgres_url() -> String {
    let url = env::var(POSTGRES_URL);
    url.unwrap_or_else(|_| panic!("{POSTGRES_URL} is not set: `cargo xtask bench store` sets it"))
}

async fn measure_all(engine: &str, options: &Options, measured: Duration) {
    let database = Database::open(options).await.expect("a database");
    for batch in BATCHES {
        // A tailnet of its own for every figure and every run.
        let tailnet = TailnetId(getrandom::u64().expect("randomness") >> 1);
        let mut bench = Bench::begin(&database, tailnet).await;
        bench.measure(batch, measured).await;
        let loading = Instant::now();
        let loaded = database.load(tailnet).await.expect("a tailnet");
        assert_eq!(loaded.tailnet.node_count(), bench.registered, "every answer is on disk");
        println!(
            "| {engine} | {batch} | {:.0} | {:.2} | {:.2} | {:.2} | {} nodes in {:.0} ms |",
            per_second(bench.registered, bench.elapsed),
            milliseconds(bench.elapsed) / f64::from(bench.commits),
            milliseconds(bench.deciding) / f64::from(bench.commits),
            milliseconds(bench.computing) / f64::from(bench.commits),
            bench.registered,
            milliseconds(loading.elapsed()),
        );
    }
    database.close().await;
}

struct Bench<'d> {
    database: &'d Database,
    state: State,
    registered: usize,
    commits: u32,
    elapsed: Duration,
    deciding: Duration,
    /// Processor time of all threads.
    computing: Duration,
}

impl<'d> Bench<'d> {
    async fn begin(database: &'d Database, tailnet: TailnetId) -> Self {
        let loaded = database.load(tailnet).await.expect("a tailnet");
        let state = State::new(
            tailnet,
            loaded,
            std::sync::Arc::default(),
            Settings::default(),
            Timestamp::UNIX_EPOCH,
        );
        let zero = Duration::ZERO;
        let mut bench = Self {
            database,
            state,
            registered: 0,
            commits: 0,
            elapsed: zero,
            deciding: zero,
            computing: zero,
        };
        bench.commit(&[Command::CreateUser(new_user("alice"))]).await;
        bench
    }

    async fn measure(&mut self, batch: usize, measured: Duration) {
        while self.elapsed < measured {
            let first = self.registered + 1;
            let numbers = first..first + batch;
            let keys: Vec<_> = numbers.clone().map(create_key).collect();
            self.commit(&keys).await;
            let commands: Vec<_> = numbers.map(register).collect();
            let (start, computed) = (Instant::now(), processor_time());
            let decided = self.commit(&commands).await;
            self.elapsed += start.elapsed();
            self.computing += processor_time().saturating_sub(computed);
            self.deciding += decided;
            self.commits += 1;
            self.registered += batch;
        }
    }

    /// Carries out commands in one batch; returns how long the state took over them.
    async fn commit(&mut self, commands: &[Command]) -> Duration {
        let start = Instant::now();
        let context = context(Timestamp::UNIX_EPOCH);
        let mut draft = self.state.draft();
        for command in commands {
            draft.apply(command, &context).expect("no command is refused");
        }
        let batch = draft.batch(context.now).expect("something to write");
        let decided = start.elapsed();
        self.database.commit(&batch).await.expect("a commit");
        self.state = draft.finish().0;
        decided
    }
}

/// A single-use key.
fn create_key(number: usize) -> Command {
    let mut key = new_preauth_key(&format!("{number:016x}"), UserId(1));
    key.secret.hash = SecretHash(format!("$argon2id$v=19$m=64,t=1,p=1${:0>22}${:0>43}", "", ""));
    Command::CreatePreauthKey(key)
}

/// Registers a machine with the key of its number.
fn register(number: usize) -> Command {
    let number = number as u64;
    // Spread over their whole range, as keys are.
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Command::Register(Box::new(Registration {
        preauth_key: Some(PreauthKeyId(number)),
        hostinfo: hostinfo(number),
        ..registration(spread, spread)
    }))
}

fn hostinfo(number: u64) -> Hostinfo {
    let service = |proto: &str| Service {
        proto: proto.to_owned(),
        port: 41641,
        description: "tailscaled".to_owned(),
    };
    Hostinfo {
        hostname: format!("machine-{number}"),
        os: "linux".to_owned(),
        os_version: "6.1.0-32-amd64".to_owned(),
        ipn_version: "1.102.5-t0123456789-g0123456789".to_owned(),
        services: vec![service("peerapi4"), service("peerapi6")],
        ..Hostinfo::default()
    }
}

/// Processor time that this process has used, in steps of 10 ms.
///
/// Source: `man 5 proc`, fields 14 and 15 of `/proc/self/stat`, in ticks of which there are 100 a second.
fn processor_time() -> Duration {
    let text = fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn per_second(count: usize, duration: Duration) -> f64 {
    count as f64 / duration.as_secs_f64()
}
