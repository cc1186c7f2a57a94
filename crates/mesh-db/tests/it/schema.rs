//! Both engines have the same schema.

use std::collections::BTreeSet;

use sqlx::Row as _;

use crate::scratch::Scratch;

/// Table, column, type, and whether it may be NULL.
type Column = (String, String, String, bool);

#[tokio::test]
async fn both_engines_have_the_same_tables_and_columns() {
    let sqlite = Scratch::sqlite();
    let postgres = Scratch::postgres().await;
    sqlite.open().await.close().await;
    postgres.open().await.close().await;
    let (one, other) = (sqlite_columns(&sqlite).await, postgres_columns(&postgres).await);
    postgres.remove().await;
    assert!(one.len() > 70, "{} columns", one.len());
    assert_eq!(one, other);
}

async fn sqlite_columns(scratch: &Scratch) -> BTreeSet<Column> {
    let sql = "
        SELECT t.name, c.name, c.type, c.\"notnull\" = 0
        FROM sqlite_schema t, pragma_table_info(t.name) c
        WHERE t.type = 'table' AND t.name NOT LIKE '\\_%' ESCAPE '\\'";
    let rows = sqlx::query(sql).fetch_all(&mut scratch.sqlite_connection().await).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

async fn postgres_columns(scratch: &Scratch) -> BTreeSet<Column> {
    let sql = "
        SELECT table_name::text, column_name::text, data_type::text, is_nullable = 'YES'
        FROM information_schema.columns
        WHERE table_schema = current_schema() AND table_name NOT LIKE '\\_%'";
    let rows = sqlx::query(sql).fetch_all(&mut scratch.postgres_connection().await).await.unwrap();
    let in_sqlite = |name: &str| match name {
        "bigint" | "boolean" => "INTEGER".to_owned(),
        "text" => "TEXT".to_owned(),
        other => panic!("columns are bigint, boolean or text, not {other}"),
    };
    rows.iter().map(|row| (row.get(0), row.get(1), in_sqlite(row.get(2)), row.get(3))).collect()
}
