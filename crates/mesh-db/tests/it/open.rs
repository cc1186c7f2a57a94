//! Databases that do not open, and what the operator is told.

use std::fs;
use std::str::FromStr as _;

use mesh_db::{Database, OpenError, Options, PostgresOptions};
use sqlx::postgres::PgConnectOptions;

use crate::on_both_engines;
use crate::scratch::{Scratch, postgres_url};

on_both_engines!(
    a_database_opens_again,
    a_newer_database_is_refused,
    a_different_database_is_refused,
    a_database_of_another_program_is_refused,
);

async fn open_error(options: &Options) -> OpenError {
    Database::open(options).await.map(drop).unwrap_err()
}

async fn a_database_opens_again(scratch: &Scratch) {
    scratch.open().await.close().await;
    scratch.open().await.close().await;
}

async fn a_newer_database_is_refused(scratch: &Scratch) {
    scratch.open().await.close().await;
    scratch
        .execute(
            "INSERT INTO _sqlx_migrations
                 (version, description, success, checksum, execution_time)
             VALUES (99991231235959, 'later', true, '', 0)",
        )
        .await;
    let error = open_error(&scratch.options()).await;
    assert!(matches!(error, OpenError::Newer { found: 99_991_231_235_959, .. }), "{error}");
    assert!(error.to_string().contains("newer meshcontrol"), "{error}");
}

async fn a_different_database_is_refused(scratch: &Scratch) {
    scratch.open().await.close().await;
    scratch.execute("UPDATE _sqlx_migrations SET checksum = ''").await;
    let error = open_error(&scratch.options()).await;
    assert!(matches!(error, OpenError::Different { .. }), "{error}");
}

async fn a_database_of_another_program_is_refused(scratch: &Scratch) {
    scratch.execute("CREATE TABLE users (id INTEGER)").await;
    let error = open_error(&scratch.options()).await;
    assert!(matches!(error, OpenError::Foreign), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let scratch = Scratch::sqlite();
    fs::write(scratch.path(), "a letter to nobody ".repeat(100)).unwrap();
    let error = open_error(&scratch.options()).await;
    assert!(matches!(error, OpenError::NotADatabase { .. }), "{error}");
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_named() {
    let scratch = Scratch::sqlite();
    fs::create_dir(scratch.path()).unwrap();
    let error = open_error(&scratch.options()).await;
    assert!(matches!(error, OpenError::File { .. }), "{error}");
    assert!(error.to_string().contains("db.sqlite"), "{error}");
}

/// The test server, as its URL names it, in parts.
fn parts(user: &str, name: &str, port: u16) -> Options {
    let server = PgConnectOptions::from_str(&postgres_url()).unwrap();
    Options::Postgres(PostgresOptions::Parts {
        host: server.get_host().to_owned(),
        port: Some(port),
        name: name.to_owned(),
        user: user.to_owned(),
        password: "secret".to_owned(),
        ssl: "false".to_owned(),
    })
}

fn port() -> u16 {
    PgConnectOptions::from_str(&postgres_url()).unwrap().get_port()
}

#[tokio::test]
async fn postgres_without_the_database_is_told_apart() {
    let server = PgConnectOptions::from_str(&postgres_url()).unwrap();
    let error = open_error(&parts(server.get_username(), "mesh_db_nowhere", port())).await;
    assert!(matches!(error, OpenError::NoDatabase { .. }), "{error}");
    assert!(error.to_string().contains("CREATE DATABASE mesh_db_nowhere"), "{error}");
}

#[tokio::test]
async fn postgres_without_the_user_is_told_apart() {
    let error = open_error(&parts("mesh_db_nobody", "postgres", port())).await;
    assert!(matches!(error, OpenError::Login { .. }), "{error}");
}

#[tokio::test]
async fn postgres_that_is_not_there_is_told_apart() {
    // Port 1 is reserved, and nobody listens on it.
    let error = open_error(&parts("postgres", "postgres", 1)).await;
    assert!(matches!(error, OpenError::Unreachable { port: 1, .. }), "{error}");
}

#[tokio::test]
async fn postgres_that_forbids_tables_is_told_apart() {
    let scratch = Scratch::postgres().await;
    let Scratch::Postgres { schema, .. } = &scratch else { unreachable!() };
    scratch.execute(&format!("CREATE ROLE {schema} LOGIN PASSWORD 'secret'")).await;
    let server = PgConnectOptions::from_str(&postgres_url()).unwrap();
    let url = format!(
        "postgres://{schema}:secret@{}:{}/{}?options[search_path]={schema}",
        server.get_host(),
        server.get_port(),
        server.get_database().unwrap(),
    );
    scratch.execute(&format!("GRANT USAGE ON SCHEMA {schema} TO {schema}")).await;
    let error = open_error(&Options::Postgres(PostgresOptions::Url(url))).await;
    scratch.remove().await;
    scratch.execute(&format!("DROP ROLE {schema}")).await;
    assert!(matches!(error, OpenError::Denied { .. }), "{error}");
}

#[tokio::test]
async fn postgres_settings_without_sense_are_refused() {
    for url in ["", "mysql://localhost/x", "postgres://localhost/x?sslmode=perhaps"] {
        let options = Options::Postgres(PostgresOptions::Url(url.to_owned()));
        let error = open_error(&options).await;
        assert!(matches!(error, OpenError::Options { .. }), "{url}: {error}");
    }
}

#[test]
fn options_hide_their_secrets() {
    let url = PostgresOptions::Url("postgres://me:secret@host/x".to_owned());
    for options in [Options::Postgres(url), parts("me", "x", 1)] {
        let shown = format!("{options:?}");
        assert!(!shown.contains("secret"), "{shown}");
    }
}
