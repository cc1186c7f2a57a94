use super::*;

#[test]
fn rows_are_arrays_of_columns() {
    let row = |id| vec![Value::Int(Some(id)), Value::Text(None), Value::Flag(Some(true))];
    let (sql, arguments) = Postgres::relation(vec![row(1), row(2)]).unwrap();
    assert_eq!(sql, "SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::boolean[])");
    assert_eq!(arguments.len(), 3);
}

#[test]
fn ssl_is_a_flag_or_a_mode() {
    let mode = |text| format!("{:?}", ssl_mode(text).unwrap());
    for (text, expected) in [
        ("", "Disable"),
        ("false", "Disable"),
        ("true", "Prefer"),
        ("require", "Require"),
        ("verify-full", "VerifyFull"),
    ] {
        assert_eq!(mode(text), expected, "{text}");
    }
    assert!(matches!(ssl_mode("perhaps"), Err(OpenError::Options { .. })));
}

#[test]
fn parts_reach_the_same_server_as_the_url() {
    let parts = PostgresOptions::Parts {
        host: "/run/postgresql".to_owned(),
        port: Some(5433),
        name: "tailnet".to_owned(),
        user: "me".to_owned(),
        password: "secret".to_owned(),
        ssl: "true".to_owned(),
    };
    let target = target(&parts).unwrap();
    assert_eq!(target.get_host(), "/run/postgresql");
    assert_eq!((target.get_port(), target.get_username()), (5433, "me"));
    assert_eq!(target.get_database(), Some("tailnet"));
    assert_eq!(target.get_application_name(), Some(APPLICATION_NAME));
}
