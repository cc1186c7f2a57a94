//! What can be told about Postgres without starting one.

use super::{Account, find_account};

const ACCOUNTS: &str = "root:x:0:0:root:/root:/bin/bash\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
    postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n";

#[test]
fn an_account_is_found_by_its_whole_name() {
    assert_eq!(find_account(ACCOUNTS, "postgres"), Some(Account { user: 101, group: 104 }));
    assert_eq!(find_account(ACCOUNTS, "post"), None);
    assert_eq!(find_account("postgres:x:many:104::\n", "postgres"), None);
}
