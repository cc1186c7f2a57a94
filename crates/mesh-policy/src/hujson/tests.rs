use proptest::prelude::*;

use super::{Kind, Reader};

#[track_caller]
fn check(text: &str, compact: &str) {
    let mut reader = Reader::new(text);
    let mut out = String::new();
    reader.compact(&mut out).expect("valid text");
    reader.end().expect("nothing after it");
    assert_eq!(out, compact);
    Reader::new(text).skip().expect("valid text");
}

/// The text has `¦` where the error stands.
#[track_caller]
fn check_error(marked: &str, message: &str) {
    let offset = marked.find('¦').expect("a mark");
    let text = marked.replace('¦', "");
    let mut reader = Reader::new(&text);
    let error = reader.skip().and_then(|()| reader.end()).expect_err("an error");
    assert_eq!((error.offset, error.message.as_str()), (offset, message));
    let mut reader = Reader::new(&text);
    let mut out = String::new();
    assert!(reader.compact(&mut out).and_then(|()| reader.end()).is_err());
}

#[track_caller]
fn check_text(written: &str, read: &str) {
    let mut reader = Reader::new(written);
    assert_eq!(reader.kind(), Ok(Kind::Text));
    assert_eq!(reader.text().expect("a text"), read);
    check(written, written);
}

#[test]
fn comments_and_trailing_commas_are_read_over() {
    check("// a\n{ /* b */ \"x\" /**/ : [1, 2, // c\n ], } // d", "{\"x\":[1,2]}");
    check("\u{feff}[true,false,null,]", "[true,false,null]");
    check("[{},[],-0,1.5e+3,0.1E-2]", "[{},[],-0,1.5e+3,0.1E-2]");
}

#[test]
fn escapes_are_read_as_json_has_them() {
    check_text(r#""\"\\\/\b\f\n\r\t\u00e4""#, "\"\\/\u{8}\u{c}\n\r\tä");
    check_text(r#""\ud83d\ude02 😂""#, "😂 😂");
    check_text("\"0123456789 no escapes äöü\"", "0123456789 no escapes äöü");
}

#[test]
fn broken_texts_are_told() {
    let no_end = "this text has no end: the closing `\"` is missing on its line";
    check_error("[¦\"abc", no_end);
    check_error("[¦\"abc\n\"]", no_end);
    check_error("[¦\"a\\n", no_end);
    check_error("[\"a¦\t\"]", "a control character in a text is written as an escape: `\\u0009`");
    let escape =
        "a backslash begins an escape, and there is none like this; write `\\\\` for a backslash";
    check_error("[\"¦\\x\"]", escape);
    check_error("[\"¦\\", escape);
    check_error("[\"¦\\u12g4\"]", "`\\u` is followed by four hexadecimal digits");
    check_error("[\"¦\\u12", "`\\u` is followed by four hexadecimal digits");
    check_error("[\"¦\\ud800\\uq\"]", "`\\u` is followed by four hexadecimal digits");
    check_error("[\"¦\\ud800\"]", "half of a surrogate pair stands alone");
    check_error("[\"¦\\ud800\\u0041\"]", "half of a surrogate pair stands alone");
    check_error("[\"¦\\udc00\"]", "half of a surrogate pair stands alone");
}

#[test]
fn broken_numbers_are_told() {
    check_error("[¦01]", "a number has no leading zero");
    check_error("[-¦]", "a digit is expected here");
    check_error("[1.¦]", "a digit is expected here");
    check_error("[1e¦]", "a digit is expected here");
    check_error("[¦+1]", "a number has no plus sign");
    check_error("[¦1x]", "this is no value; a text stands in double quotes");
}

#[test]
fn what_is_no_value_is_told() {
    let word = "this is no value; a text stands in double quotes, and the words are `true`, `false`, `null`";
    check_error("[¦True]", word);
    check_error("[¦nul]", word);
    check_error("[¦nullx]", "this is no value; a text stands in double quotes");
    check_error("[¦'a']", "a text stands in double quotes, not in single ones");
    check_error("[¦# a\n]", "a comment begins with `//`, not with `#`");
    check_error("[¦,]", "a value is expected before this comma");
    check_error("{\"a\":¦}", "a value is expected before this bracket");
    check_error("¦", "the text ends where a value is expected");
    check_error("[¦é]", "a value is expected here");
    check_error("{} ¦1", "there is something after the end of the value");
}

#[test]
fn what_is_missing_between_values_is_told() {
    check_error("[1 ¦2]", "a `,` or `]` is expected here");
    check_error("[1 ¦# a\n]", "a comment begins with `//`, not with `#`");
    check_error("[1¦}", "a `]` is expected before this bracket");
    check_error("{\"a\":1¦", "the text ends before the closing `}`");
    check_error("[1,¦", "the text ends before the closing `]`");
    check_error("{\"a\" ¦1}", "a `:` is expected between a name and its value");
    check_error("{¦'a': 1}", "a name stands in double quotes, not in single ones");
    check_error("{¦a: 1}", "a name in double quotes is expected here");
    check_error("{¦# a\n}", "a comment begins with `//`, not with `#`");
    check_error("{\"a\":1,¦,}", "there is one comma too many");
    check_error("[¦/]", "a comment begins with `//` or `/*`");
    check_error("[¦/* a", "this comment has no end: `*/` is missing");
}

#[test]
fn nesting_has_a_limit() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    Reader::new(&deep(64)).skip().expect("64 are allowed");
    let error = Reader::new(&deep(65)).skip().expect_err("65 are not");
    assert_eq!(
        (error.offset, error.message.as_str()),
        (64, "objects and lists nest deeper than 64")
    );
}

#[test]
fn elements_are_counted_ahead() {
    let mut reader = Reader::new("[1, [2, 3], {\"a\": 4}, ]");
    reader.begin_list().expect("a list");
    assert_eq!(reader.count_elements(), Ok(3));
    assert_eq!(reader.next_element(), Ok(true));
    reader.skip().expect("a number");
    assert_eq!(reader.count_elements(), Ok(2));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_inside_it(text in r#"[\[\]{}:,"\\/* \n0-9a-zä'#+.\-u\x00]{0,60}"#) {
        let mut reader = Reader::new(&text);
        if let Err(error) = reader.skip().and_then(|()| reader.end()) {
            prop_assert!(text.is_char_boundary(error.offset));
        }
    }

    #[test]
    fn json_is_read_as_serde_reads_it(text in r#"[\[\]{}:,"\\ 0-9tfnul\-.eéra]{0,24}"#) {
        let ours = {
            let mut reader = Reader::new(&text);
            reader.skip().and_then(|()| reader.end()).is_ok()
        };
        let serde = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        // What serde takes we take; what we take beyond it has a trailing comma.
        prop_assert!(ours || !serde, "{}", text);
        prop_assert!(serde || !ours || text.contains(','), "{}", text);
    }

    #[test]
    fn texts_are_read_as_serde_reads_them(text in any::<String>()) {
        let written = serde_json::to_string(&text).expect("a text");
        let mut reader = Reader::new(&written);
        prop_assert_eq!(reader.text().expect("a text"), text);
    }
}
