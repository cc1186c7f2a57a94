use super::{Content, Node, TEXT_BYTES_MAX, parse};

/// What stands at `path`, as `line:column text`.
fn check(text: &str, path: &str, expected: &str) {
    let document = parse(text).map_err(|error| error.message).expect(text);
    let node = document.find(path).expect(path);
    let position = node.position.expect("from a file");
    let value = node.as_text().expect("a text");
    assert_eq!(format!("{}:{} {value}", position.line, position.column), expected, "{text}");
}

#[test]
fn texts_keep_their_spelling_and_place() {
    for (text, expected) in [
        ("a: 0770", "1:4 0770"),
        ("a: 1e5 # é", "1:4 1e5"),
        ("é: x\na: 1e999", "2:4 1e999"),
        ("a: .inf", "1:4 .inf"),
        ("a: 'on'", "1:4 on"),
        ("a: on", "1:4 on"),
        ("a: \"0o7\\u0030\"", "1:4 0o70"),
        ("a: |\n  12\n", "2:3 12\n"),
        ("a: >-\n  x\n  y\n", "2:3 x y"),
        ("{a: 7}", "1:5 7"),
        ("\u{feff}a: 12", "1:4 12"),
        ("a: !!str 12", "1:10 12"),
        ("a: !ours 012", "1:10 012"),
    ] {
        check(text, "a", expected);
    }
}

#[test]
fn aliases_and_merges_stand_where_they_are_used() {
    check("x: &x 012\na: *x\n", "a", "2:4 012");
    check("x: &x {k: 012}\na:\n  <<: *x\n  z: 1\n", "a.k", "3:7 012");
}

#[test]
fn null_is_not_found() {
    for text in ["", "~", "a:", "a: null", "a: ~", "b: 1"] {
        assert_eq!(parse(text).expect("yaml").find("a"), None, "{text}");
    }
}

#[test]
fn names_have_places_and_are_texts() {
    let document = parse("a: 1\n 'b' : 2\n".trim_start()).err();
    assert!(document.is_some(), "uneven indentation");
    let document = parse("a: 1\n1: 2\n").expect("yaml");
    let Content::Map(entries) = document.content else { panic!("a map") };
    let names: Vec<_> =
        entries.iter().map(|(name, _)| (name.text.as_str(), name.position.line)).collect();
    assert_eq!(names, [("a", 1), ("1", 2)]);
}

#[test]
fn what_is_no_single_document_is_refused_with_its_place() {
    for (text, line, message) in [
        ("a: [", 1, "unclosed bracket '['"),
        ("a: 1\na: 2", 2, "duplicate mapping key: a not allowed here"),
        ("---\na: 1\n---\nb: 2\n", 4, ""),
        ("a: *nope", 1, ""),
        ("a: &a [*a]", 1, ""),
        ("? [a]\n: b\n", 1, ""),
    ] {
        let error = parse(text).expect_err("refused");
        assert_eq!(error.position.map(|position| position.line), Some(line), "{}", error.message);
        assert!(
            error.message.starts_with(&format!("this is not valid YAML: {message}")),
            "{}",
            error.message
        );
    }
}

#[test]
fn a_long_text_is_refused() {
    let long = "x".repeat(TEXT_BYTES_MAX);
    assert!(parse(&format!("a: 1\nb: {long}")).is_ok());
    let error = parse(&format!("a: 1\nb: {long}x")).expect_err("refused");
    assert_eq!(error.position.map(|position| position.line), Some(2));
    assert_eq!(error.message, "a text is longer than 4096 bytes");
    let error = parse(&format!("a: 1\n? {long}x\n: 2\n")).expect_err("refused");
    assert!(error.message.ends_with("a name is longer than 4096 bytes"), "{}", error.message);
}

#[test]
fn yaml_without_file_has_no_places() {
    let node = Node::from_yaml("{a: [1, {b: 2}]}").expect("yaml");
    let Content::List(list) = &node.find("a").expect("there").content else { panic!("a list") };
    assert!(list.iter().all(|node| node.position.is_none()));
    assert_eq!(list[1].find("b"), Some(&Node::text("2")));
}
