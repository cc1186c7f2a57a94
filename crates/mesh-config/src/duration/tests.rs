use std::time::Duration;

use proptest::prelude::*;

use super::{DurationError, parse_duration};

fn check(text: &str, expected: Duration) {
    assert_eq!(parse_duration(text), Ok(expected), "{text}");
}

#[test]
fn prometheus_durations_are_read() {
    check("0", Duration::ZERO);
    check("0s", Duration::ZERO);
    check("800ms", Duration::from_millis(800));
    check("30s", Duration::from_secs(30));
    check("30m", Duration::from_mins(30));
    check("24h", Duration::from_hours(24));
    check("7d", Duration::from_hours(7 * 24));
    check("2w", Duration::from_hours(14 * 24));
    check("1y", Duration::from_hours(365 * 24));
    check(
        "1y2w3d4h5m6s7ms",
        Duration::from_millis(((365 + 14 + 3) * 86_400 + 4 * 3_600 + 306) * 1_000 + 7),
    );
}

#[test]
fn durations_of_go_are_read() {
    check("1h30m", Duration::from_mins(90));
    check("1.5h", Duration::from_mins(90));
    check("100us", Duration::from_micros(100));
    check("100µs", Duration::from_micros(100));
    check("5ns", Duration::from_nanos(5));
}

#[test]
fn other_texts_are_refused_with_what_is_wrong() {
    let refused = |text: &str| parse_duration(text).expect_err(text);
    assert_eq!(refused(""), DurationError::Empty);
    assert_eq!(refused("30"), DurationError::NoUnit { number: "30".to_owned() });
    assert_eq!(refused("h"), DurationError::NoNumber { rest: "h".to_owned() });
    assert_eq!(refused("-1h"), DurationError::NoNumber { rest: "-1h".to_owned() });
    assert_eq!(refused("1h "), DurationError::NoNumber { rest: " ".to_owned() });
    assert_eq!(refused("1.h"), DurationError::NoNumber { rest: "1.".to_owned() });
    assert_eq!(refused("1.2.3h"), DurationError::NoNumber { rest: "1.2.3".to_owned() });
    assert_eq!(refused("1month"), DurationError::UnknownUnit { unit: "month".to_owned() });
    assert_eq!(refused("1m1h"), DurationError::Order { unit: "h" });
    assert_eq!(refused("1m1m"), DurationError::Order { unit: "m" });
    assert_eq!(refused("300y"), DurationError::TooLong);
    assert_eq!(refused("99999999999999999999s"), DurationError::TooLong);
    assert_eq!(refused("292y100w"), DurationError::TooLong);
}

proptest! {
    #[test]
    fn any_text_is_a_duration_or_an_error(text in "\\PC{0,40}") {
        let _ = parse_duration(&text);
    }

    #[test]
    fn units_add_up(days in 0_u64..1_000, hours in 0_u64..24, seconds in 0_u64..4_000) {
        prop_assert_eq!(
            parse_duration(&format!("{days}d{hours}h{seconds}s")),
            Ok(Duration::from_secs((days * 24 + hours) * 3_600 + seconds))
        );
    }
}
