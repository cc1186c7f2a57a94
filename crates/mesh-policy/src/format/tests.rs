use proptest::prelude::*;

use super::format;
use crate::hujson::Reader;

#[track_caller]
fn check(input: &str, expected: &str) {
    let expected = format!("{}\n", expected.trim_start_matches('\n'));
    assert_eq!(format(input).expect("valid text"), expected);
    assert_eq!(format(&expected).expect("valid text"), expected, "laid out again");
}

#[test]
fn what_fits_on_a_line_stays_there() {
    check(r#"{"name" : "value" , "list":[1,2 ,],}"#, r#"{"name": "value", "list": [1, 2]}"#);
    check(" null ", "null");
    check("{ }", "{}");
    check("[\n\n]", "[]");
}

#[test]
fn what_begins_on_a_new_line_gets_a_line_for_each_entry() {
    check(
        "{\"acls\": [\n{\"src\": [\"*\"]}, {\"src\": [\"a@b\"]}], // all\n}",
        r#"
{
	"acls": [
		{"src": ["*"]},
		{"src": ["a@b"]},
	], // all
}"#,
    );
}

#[test]
fn what_does_not_fit_is_spread() {
    let entry = "\"0123456789012345678901234567890123456789\"";
    check(&format!("[{entry}, {entry}]"), &format!("[\n\t{entry},\n\t{entry}\n]"));
}

#[test]
fn plain_json_stays_plain() {
    check("[\n1, 2]", "[\n\t1,\n\t2\n]");
    check("[\n1, 2,]", "[\n\t1,\n\t2,\n]");
}

#[test]
fn values_on_neighbouring_lines_are_aligned() {
    check(
        "{\n\"a\": 1,\n\"longer\": 2, // two\n\n\"b\": 3,\n// four\n\"long\": 4,\n\"x\": [\n5],\n\"yy\": 6\n}",
        r#"
{
	"a":      1,
	"longer": 2, // two

	"b": 3,
	// four
	"long": 4,
	"x": [
		5,
	],
	"yy": 6,
}"#,
    );
}

#[test]
fn comments_stay_above_behind_and_below() {
    check(
        "// top\n\n\n\n{ // open\n\n// above\n\"a\": 1 // behind\n, \"b\": 2, /* c */ \"c\": 3\n// below\n} // end\n/* last */",
        r#"
// top

{ // open
	// above
	"a": 1, // behind
	"b": 2,
	/* c */
	"c": 3,
	// below
} // end
/* last */"#,
    );
}

#[test]
fn comments_in_the_middle_of_a_member_move_above_it() {
    check(
        "{\"name\" // line3\n : /* four */ \"value\" // five\n}",
        "\n{\n\t// line3\n\t/* four */\n\t\"name\": \"value\", // five\n}",
    );
    check("/**/null", "/**/\nnull");
    check("[/* none */]", "[ /* none */\n]");
}

#[test]
fn long_comments_are_indented_anew() {
    check("[\n/*\n* one\n* two\n*/\n1]", "\n[\n\t/*\n\t * one\n\t * two\n\t */\n\t1,\n]");
    check(
        "[\n\t\t/* one\r\n\n    two  \n      three\n*/\n1]",
        "\n[\n\t/* one\n\n\ttwo\n\t  three\n\t*/\n\t1,\n]",
    );
}

#[test]
fn broken_text_is_refused_with_its_place() {
    let problems = format("{\n  \"a\" 1}").expect_err("a colon is missing");
    assert_eq!(problems.to_string(), "policy:2:7: a `:` is expected between a name and its value");
    assert_eq!(format("").as_deref(), Ok(""));
    assert!(format(&" ".repeat((4 << 20) + 1)).is_err());
}

fn compact(text: &str) -> String {
    let mut out = String::new();
    Reader::new(text).compact(&mut out).expect("valid text");
    out
}

/// Comments without the white space in them, sorted.
fn notes(text: &str) -> Vec<String> {
    let mut tokens = super::Tokens { rest: text };
    let mut notes = Vec::new();
    loop {
        let token = tokens.next();
        let (found, _) = super::comments(token.extra);
        notes.extend(found.iter().map(|comment| comment.text.split_whitespace().collect()));
        if token.text.is_empty() {
            notes.sort();
            return notes;
        }
    }
}

fn space() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => Just(String::new()),
        2 => Just(" ".to_owned()),
        2 => Just("\n".to_owned()),
        1 => Just("\n\n\n".to_owned()),
        1 => "// [a-z*/]{0,6} \r?\n",
        1 => "/\\*[ a-z\n*\t]{0,12}\\*/",
    ];
    prop::collection::vec(piece, 0..3).prop_map(|pieces| pieces.concat())
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("-1.5e3".to_owned()),
        "\"[a-z/\\*ä,:{]{0,30}\"",
        Just(r#""\"\\""#.to_owned()),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let entry =
            (space(), inner, space()).prop_map(|(a, value, b)| format!("{a}{value}{b}")).boxed();
        let member = (space(), "[a-z]{0,9}", space(), entry.clone())
            .prop_map(|(a, name, b, value)| format!("{a}\"{name}\"{b}:{value}"));
        let list = |of| (prop::collection::vec(of, 0..6), any::<bool>(), space());
        let wrap = |(entries, comma, end): (Vec<String>, bool, String), open, close| {
            let comma = if comma && !entries.is_empty() { "," } else { "" };
            format!("{open}{}{comma}{end}{close}", entries.join(","))
        };
        prop_oneof![
            list(entry).prop_map(move |parts| wrap(parts, '[', ']')),
            list(member.boxed()).prop_map(move |parts| wrap(parts, '{', '}')),
        ]
    })
}

proptest! {
    #[test]
    fn laying_out_keeps_values_and_comments_and_changes_nothing_the_second_time(
        (before, value, after) in (space(), value(), space()),
    ) {
        let text = format!("{before}{value}{after}");
        let once = format(&text).expect("valid text");
        prop_assert_eq!(compact(&once), compact(&text));
        prop_assert_eq!(notes(&once), notes(&text));
        prop_assert_eq!(format(&once).expect("valid text"), once);
    }
}

#[test]
fn what_would_be_far_too_long_laid_out_is_refused() {
    let refused = |text: &str| super::format(text).expect_err("refused").to_string();
    let deep = format!("{}\n{}{}", "[".repeat(60), "0,".repeat(100_000), "]".repeat(60));
    assert_eq!(refused(&deep), "policy:1:1: laid out, the policy is longer than 4 MiB");
    let commented = format!("{{{}}}", "/**/".repeat(10_001));
    assert_eq!(refused(&commented), "policy:1:1: more than 10000 comments stand in one place");
}

#[test]
fn a_thousand_members_are_aligned_together() {
    let members = |count: usize| "\"a\":0,\n".repeat(count);
    let text = format!("{{\n{}\"long\":0,\n}}", members(1_000));
    let formatted = super::format(&text).expect("no error");
    assert!(formatted.contains("\t\"a\": 0,\n\t\"long\": 0,\n"), "{}", &formatted[..40]);
    assert_eq!(super::format(&formatted).as_ref(), Ok(&formatted));
}
