use super::with_database;

fn check(server: &str, expected: &str) {
    assert_eq!(with_database(server, "mine"), expected, "{server}");
}

#[test]
fn the_database_is_replaced_and_the_rest_stays() {
    check("postgres://role:pass@host:5433/postgres", "postgres://role:pass@host:5433/mine");
    check("postgres://role@host", "postgres://role@host/mine");
    check("postgres:///postgres?host=/tmp/pg&user=me", "postgres:///mine?host=/tmp/pg&user=me");
}
