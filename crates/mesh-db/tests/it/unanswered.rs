//! A COMMIT whose answer never comes: a proxy that cuts the line at the worst moments.

use std::str::FromStr as _;
use std::sync::{Arc, Mutex};

use mesh_db::{Database, Options, PostgresOptions};
use mesh_store::{Persist as _, PersistError};
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::scratch::{Scratch, batch, contents, load, put_user, user};

/// When the proxy cuts the next connection; then it works again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The server never hears of the COMMIT.
    Before,
    /// The server hears of it, and nobody waits for what it says.
    At,
    /// The server has said that it is done.
    After,
}

#[derive(Clone)]
struct Proxy {
    cut: Arc<Mutex<Option<Cut>>>,
    /// Every change cuts all lines.
    cuts: watch::Sender<()>,
}

impl Proxy {
    fn new() -> Self {
        Self { cut: Arc::default(), cuts: watch::Sender::new(()) }
    }

    /// Starts to listen, and opens the database through it.
    async fn open(&self, scratch: &Scratch) -> Database {
        let server = PgConnectOptions::from_str(&scratch.url()).unwrap();
        let upstream = (server.get_host().to_owned(), server.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&upstream).await.unwrap();
                tokio::spawn(proxy.clone().carry(client, server));
            }
        });
        let url = server.host("127.0.0.1").port(port).to_url_lossy();
        let options = PostgresOptions::Url(scratch.within(url.as_str()));
        Database::open(&Options::Postgres(options)).await.unwrap()
    }

    async fn carry(self, mut client: TcpStream, mut server: TcpStream) {
        let (mut question, mut answer) = (vec![0; 65536], vec![0; 65536]);
        let mut cuts = self.cuts.subscribe();
        loop {
            tokio::select! {
                _ = cuts.changed() => return,
                read = client.read(&mut question) => {
                    let Ok(length @ 1..) = read else { return };
                    let said = &question[..length];
                    let is_commit = said.windows(7).any(|window| window == b"COMMIT\0");
                    let cut = if is_commit { self.cut.lock().unwrap().take() } else { None };
                    if cut == Some(Cut::Before) {
                        return;
                    }
                    server.write_all(said).await.unwrap();
                    if cut == Some(Cut::After) {
                        server.read_exact(&mut answer[..1]).await.unwrap();
                    }
                    if cut.is_some() {
                        return;
                    }
                }
                read = server.read(&mut answer) => {
                    let Ok(length @ 1..) = read else { return };
                    client.write_all(&answer[..length]).await.unwrap();
                }
            }
        }
    }
}

#[tokio::test]
async fn it_is_known_afterwards_whether_a_commit_took_place() {
    let scratch = Scratch::postgres().await;
    let proxy = Proxy::new();
    let database = proxy.open(&scratch).await;
    load(&database).await;
    let mut revision = 0;
    for cut in [Cut::Before, Cut::At, Cut::After].repeat(5) {
        let writes = [put_user(user(revision + 1))];
        *proxy.cut.lock().unwrap() = Some(cut);
        let told = database.commit(&batch(revision + 1, writes.clone())).await;
        assert_eq!(*proxy.cut.lock().unwrap(), None, "the line was not cut");
        match cut {
            Cut::Before => assert!(matches!(told, Err(PersistError::Unavailable(_)))),
            Cut::At => {}
            Cut::After => assert!(told.is_ok(), "the server was done"),
        }
        let taken = scratch.numbers("SELECT rev FROM tailnet").await[0][0].cast_unsigned();
        assert_eq!(taken, revision + u64::from(told.is_ok()), "{cut:?}: {told:?}");
        if told.is_err() {
            database.commit(&batch(revision + 1, writes)).await.expect("the line works again");
        }
        revision += 1;
    }
    assert_eq!(contents(&load(&database).await.tailnet).users.len() as u64, revision);
    database.close().await;
    scratch.remove().await;
}

#[tokio::test]
async fn a_line_that_was_cut_meanwhile_is_not_noticed() {
    let scratch = Scratch::postgres().await;
    let proxy = Proxy::new();
    let database = proxy.open(&scratch).await;
    load(&database).await;
    for revision in 1..=3 {
        proxy.cuts.send_replace(());
        database.commit(&batch(revision, [put_user(user(revision))])).await.unwrap();
        database.ping().await.unwrap();
    }
    scratch.remove().await;
}
