//! The server as a process: which policy is in force, and what becomes of a policy file.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use mesh_db::{Database, Options};
use mesh_model::{PolicyVersion, PolicyVersionId, TailnetId};
use mesh_state::{Batch, Loaded, Write};
use mesh_store::Persist as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::fake::program;

/// Longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(30);

const NOBODY: &str = r#"{"acls": []}"#;
const FAILING: &str =
    r#"{"acls": [], "tests": [{"src": "100.64.0.1", "accept": ["100.64.0.2:80"]}]}"#;

/// A directory with all that a server has.
pub(crate) struct Place {
    directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The program that serves, with these keys in its configuration.
    fn command(&self, policy: &str) -> Command {
        let relay = "{listen_addr: 127.0.0.1:0, stun_listen_addr: 127.0.0.1:0}";
        let config = format!(
            "listen_addr: 127.0.0.1:0\nmetrics_listen_addr: 127.0.0.1:0\nunix_socket: socket\nderp: {{server: {relay}}}\n{policy}"
        );
        self.write("config.yaml", &config);
        let mut command = program("serve --config");
        command.arg(self.path("config.yaml"));
        command.env("MESHCONTROL_DATA_DIR", self.path("data"));
        command.stdout(Stdio::null()).stderr(fs::File::create(self.path("log")).unwrap());
        command
    }

    /// A server that answers.
    pub(crate) fn serve(&self, policy: &str) -> Served<'_> {
        self.serve_with(policy, &[])
    }

    /// One with more variables in its environment.
    pub(crate) fn serve_with(&self, policy: &str, variables: &[(&str, &str)]) -> Served<'_> {
        let command = &mut self.command(policy);
        let process = command.envs(variables.iter().copied()).spawn().unwrap();
        let mut served = Served { place: self, process };
        while UnixStream::connect(self.path("socket")).is_err() {
            let ended = served.process.try_wait().unwrap();
            assert_eq!(ended, None, "it does not start: {}", self.log());
            sleep(Duration::from_millis(20));
        }
        served
    }

    /// What a server says that does not start.
    pub(crate) fn refuses(&self, policy: &str) -> String {
        let status = self.command(policy).status().unwrap();
        assert_eq!(status.code(), Some(1), "{}", self.log());
        self.log()
    }

    /// Leaves a policy in the database that makes no sense, as another version of the program may.
    fn damage_policy(&self) {
        let path = self.path("data/db.sqlite");
        let options = Options::Sqlite { path, write_ahead_log: true, wal_autocheckpoint: 1000 };
        let damage = async {
            let database = Database::open(&options).await.unwrap();
            let Loaded { tailnet, counters, revision } = database.load(TailnetId(1)).await.unwrap();
            let newest = tailnet.policy_version().unwrap();
            let version = PolicyVersion {
                id: PolicyVersionId(newest.id.0 + 1),
                text: "{".to_owned(),
                ..PolicyVersion::clone(newest)
            };
            let batch = Batch {
                tailnet: TailnetId(1),
                revision: revision + 1,
                counters,
                writes: vec![Write::PutPolicy(version.into())],
                change: "{}".to_owned(),
                at: newest.created_at,
            };
            database.commit(&batch).await.unwrap();
            database.close().await;
        };
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(damage);
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }
}

/// A running server; it ends with the value.
pub(crate) struct Served<'p> {
    place: &'p Place,
    process: Child,
}

impl Served<'_> {
    pub(crate) fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds() {
            assert!(Instant::now() < deadline, "{what}: {}", self.place.log());
            sleep(Duration::from_millis(20));
        }
    }

    /// Asks the API, on the socket.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let mut stream = UnixStream::connect(self.place.path("socket")).unwrap();
        let length = body.len();
        let head = format!("{method} /api/v1{path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// Where its metrics are, as its log tells.
    pub(crate) fn metrics_address(&self) -> SocketAddr {
        let address = || {
            let log = self.place.log();
            log.split("metrics.listen=").nth(1)?.split_whitespace().next()?.parse().ok()
        };
        self.until("metrics are served", || address().is_some());
        address().unwrap()
    }

    fn policy(&self) -> Value {
        self.ask("GET", "/policy", "")
    }

    /// Waits until this text is in force and nothing stands against the file.
    fn until_in_force(&self, text: &str) {
        self.until(text, || {
            let policy = self.policy();
            policy["policy"] == text && policy["problem"].is_null()
        });
    }

    /// Waits until the file is not in force, and returns why.
    fn until_told(&self, what: &str) -> String {
        let problem = || self.policy()["problem"].as_str().unwrap_or_default().to_owned();
        self.until(what, || problem().contains(what));
        problem()
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(status.success());
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        assert!(self.process.wait().unwrap().success(), "{}", self.place.log());
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The status and the body of an answer to a GET, with more lines in its head.
pub(crate) fn http_get(address: SocketAddr, path: &str, lines: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n{lines}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

const FILE: &str = "policy: {mode: file, path: acl.hujson}\n";

#[test]
fn a_policy_file_is_followed() {
    let place = Place::new();
    place.write("acl.hujson", NOBODY);
    let server = place.serve(FILE);
    let policy = server.policy();
    assert_eq!((&policy["policy"], &policy["mode"]), (&NOBODY.into(), &"file".into()));
    assert_eq!((&policy["updatedBy"], &policy["version"]), (&"file".into(), &"1".into()));

    place.write("acl.hujson", "{} // 2");
    server.until_in_force("{} // 2");
    // As editors and configuration managers do.
    place.write("acl.new", "{} // 3");
    fs::rename(place.path("acl.new"), place.path("acl.hujson")).unwrap();
    server.until_in_force("{} // 3");
    assert_eq!(server.ask("GET", "/policy/versions", "")["versions"].as_array().unwrap().len(), 3);
    server.stop();
}

#[test]
fn a_bad_file_changes_nothing_and_is_told() {
    let place = Place::new();
    place.write("acl.hujson", NOBODY);
    let server = place.serve(FILE);
    let check = |text: &str, what: &str| {
        place.write("acl.hujson", text);
        let problem = server.until_told(what);
        assert_eq!(server.policy()["policy"], NOBODY);
        let log = place.log();
        assert!(
            log.contains("ERROR") && log.contains("the last good policy stays"),
            "{problem}: {log}"
        );
    };
    check(
        "{\"acls\": [\n{\"action\": \"accept\", \"src\": [\"group:a\"], \"dst\": [\"*:*\"]}]}",
        "policy:2:",
    );
    check("", "the policy is empty");
    check(FAILING, "test(s) failed");
    fs::remove_file(place.path("acl.hujson")).unwrap();
    server.until_told("No such file");
    assert_eq!(server.policy()["policy"], NOBODY);

    place.write("acl.hujson", NOBODY);
    server.until_in_force(NOBODY);
    assert_eq!(server.policy()["version"], "1");
    server.stop();
}

#[test]
fn sighup_reads_the_file_again_and_ends_nothing() {
    let place = Place::new();
    place.write("acl.hujson", NOBODY);
    let server = place.serve(FILE);
    server.signal("HUP");
    server.until("it is read again", || place.log().contains("read again"));
    server.until_in_force(NOBODY);
    server.stop();

    let server = place.serve("policy: {mode: database}\n");
    server.signal("HUP");
    assert_eq!(server.policy()["policy"], NOBODY);
    server.stop();
}

#[test]
fn a_file_that_makes_no_sense_stops_the_start() {
    let place = Place::new();
    let log = place.refuses(FILE);
    assert!(log.contains("cannot read the policy file"), "{log}");
    place.write("acl.hujson", "{\"acls\": [],\n\"gruops\": {}, \"x\": 1}");
    let log = place.refuses(FILE);
    assert!(log.contains("policy:2:1") && log.contains("gruops"), "{log}");
    place.write("acl.hujson", "");
    let log = place.refuses(FILE);
    assert!(log.contains("the policy is empty"), "{log}");
}

#[test]
fn a_file_that_fails_its_tests_is_in_force_from_the_start_and_told() {
    let place = Place::new();
    place.write("acl.hujson", FAILING);
    let server = place.serve(FILE);
    assert_eq!(server.policy()["policy"], FAILING);
    let log = place.log();
    assert!(log.contains("ERROR") && log.contains("fails its own tests"), "{log}");
    server.stop();
}

#[test]
fn a_policy_of_the_database_outlives_the_process_and_its_absence_of_mind() {
    let place = Place::new();
    let server = place.serve("");
    assert_eq!(server.policy()["policy"], "");
    let body = serde_json::json!({ "policy": NOBODY }).to_string();
    assert_eq!(server.ask("PUT", "/policy", &body)["updatedBy"], "cli");
    server.stop();
    // Headscale's example: a mode of file without a file.
    let server = place.serve("policy: {mode: file, path: ''}\n");
    assert_eq!(server.policy()["policy"], NOBODY);
    server.stop();

    place.damage_policy();
    let log = place.refuses("");
    assert!(log.contains("the policy in the database (version 2"), "{log}");
    place.write("acl.hujson", "{}");
    place.serve(FILE).stop();
}
