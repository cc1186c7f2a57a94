//! Reading source without its comments, literals and tests.

use std::path::PathBuf;

use super::{Function, Source, blank_test_modules, blank_text, find_words};

fn source(text: &str) -> Source {
    Source::new(PathBuf::from("crates/a/src/lib.rs"), text.to_owned())
}

/// Asserts that blanking `text` leaves `expected`, in which `_` stands for a blank.
#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(blank_text(text), expected.replace('_', " "));
}

#[test]
fn comments_are_blanked() {
    check("a // b\nc", "a ____\nc");
    check("a /* b /* c */ d */ e", "a _________________ e");
    check("/* never closed", "_______________");
}

#[test]
fn strings_are_blanked_with_their_escapes() {
    check(r#"f("a\"b{")"#, "f(_______)");
    check(r##"f(r#"a"b"#, x)"##, "f(________, x)");
    check(r#"f(br"\", b"\\")"#, "f(b____, b____)");
    check("f(\"\u{e9}\")", "f(____)");
}

#[test]
fn characters_are_blanked_and_lifetimes_are_not() {
    check(r"f('{', '\'', b'}')", "f(___, ____, b___)");
    check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
    check("f('\u{e9}', '\u{2192}')", "f(____, _____)");
}

#[test]
fn raw_identifiers_are_code() {
    check("let r#type = var;", "let r#type = var;".replace('_', " ").as_str());
}

#[test]
fn items_under_cfg_test_are_not_production() {
    let source =
        source("fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { c[0]; }\n}\nfn d() {}\n");
    assert!(source.lines_with("b").next().is_none());
    assert_eq!(source.lines_with("d").collect::<Vec<_>>(), [6]);
    assert_eq!(source.production_lines(), 2);
}

#[test]
fn a_module_declared_under_cfg_test_is_not_production() {
    let file = |path: &str, text: &str| Source::new(PathBuf::from(path), text.to_owned());
    let mut sources = [
        file("a/src/lib.rs", "#[cfg(test)]\nmod law;\nmod core;\n"),
        file("a/src/law.rs", "fn f() {}\n"),
        file("a/src/law/deep.rs", "fn f() {}\n"),
        file("a/src/core.rs", "#[cfg(test)]\nmod law;\n"),
        file("a/src/core/law.rs", "fn f() {}\n"),
        file("a/src/core/laws.rs", "fn f() {}\n"),
    ];
    blank_test_modules(&mut sources);
    assert_eq!(
        sources.each_ref().map(Source::is_production),
        [true, false, false, false, false, true]
    );
}

#[test]
fn words_are_found_whole() {
    assert_eq!(find_words("offset set", "set"), Some(7));
    assert_eq!(find_words("settle", "set"), None);
    assert_eq!(find_words("std::fs::read", "fs::"), Some(5));
    assert_eq!(find_words("offs::read", "fs::"), None);
}

#[test]
fn functions_are_measured_from_fn_to_brace() {
    let source = source(
        "trait T { fn no_body(&self); }\n\
         fn one(x: [u8; 2]) -> u8 { x[0] }\n\
         fn two(f: fn(u8) -> u8) -> u8\n\
         where\n\
             u8: Copy,\n\
         {\n\
             match f(1) { 0 => { 1 } _ => 2 }\n\
         }\n",
    );
    assert_eq!(
        source.functions(),
        [Function { name: "one", line: 2, lines: 1 }, Function { name: "two", line: 3, lines: 6 }]
    );
}
