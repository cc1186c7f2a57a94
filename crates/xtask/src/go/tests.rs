//! Reading Go's version.

use super::parse_version;

#[test]
fn releases_and_release_candidates_are_read() {
    assert_eq!(parse_version("go1.26.8"), Some((1, 26)));
    assert_eq!(parse_version("go1.27"), Some((1, 27)));
    assert_eq!(parse_version("go1.27rc1"), Some((1, 27)));
}

#[test]
fn anything_else_is_no_version() {
    assert_eq!(parse_version("devel +abc"), None);
    assert_eq!(parse_version("go1"), None);
    assert_eq!(parse_version(""), None);
}
