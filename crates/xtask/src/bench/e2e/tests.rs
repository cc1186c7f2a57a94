//! Reading the command line.

use std::time::Duration;

use super::parse_span;

#[test]
fn spans_have_a_unit() {
    assert_eq!(parse_span("90s").unwrap(), Duration::from_secs(90));
    assert_eq!(parse_span("8m").unwrap(), Duration::from_mins(8));
    for text in ["", "8", "m", "8h", "-1s", "ä"] {
        parse_span(text).unwrap_err();
    }
}
