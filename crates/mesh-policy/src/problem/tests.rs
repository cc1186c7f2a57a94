use super::{Collector, Refusal, nearest, quoted};

#[test]
fn texts_are_quoted_as_go_does() {
    assert_eq!(quoted("a'b \"c\" \\"), r#""a'b \"c\" \\""#);
    assert_eq!(quoted("\u{7}\u{8}\u{c}\n\r\t\u{b}\0\u{7f}"), r#""\a\b\f\n\r\t\v\x00\x7f""#);
    assert_eq!(quoted("сервер 😂 e\u{301}"), "\"сервер 😂 e\u{301}\"");
    assert_eq!(quoted("\u{a0}\u{200b}\u{e0001}"), r#""\u00a0\u200b\U000e0001""#);
}

#[test]
fn long_texts_are_cut() {
    assert_eq!(quoted(&"ä".repeat(1000)), format!("\"{}…\"", "ä".repeat(128)));
}

#[test]
fn a_near_name_is_suggested() {
    let names = ["group:admins", "group:devs", "group:ops"];
    assert_eq!(nearest("group:admns", names).as_deref(), Some("group:admins"));
    assert_eq!(nearest("group:dves", names).as_deref(), Some("group:devs"));
    assert_eq!(nearest("group:marketing", names), None);
    assert_eq!(nearest(&"x".repeat(65), ["x"]), None);
}

#[test]
fn problems_stand_in_the_order_of_the_text_with_line_and_column() {
    let text = "\u{feff}{\n\t\"ä\": 1 }";
    let mut found = Collector::default();
    assert!(found.is_empty());
    let suggestion = Some("b".to_owned());
    let offset = text.find('1').expect("there is one");
    found.push(offset, "a[0]".to_owned(), Refusal { message: "wrong".into(), suggestion });
    found.push(3, String::new(), "first".into());
    found.count();
    let problems = found.finish(text);
    assert_eq!(
        problems.to_string(),
        "policy:1:1: first\npolicy:2:7: a[0]: wrong (did you mean \"b\"?)\nand 1 more"
    );
    let json = serde_json::to_string(&problems.problems[0]).expect("JSON");
    assert_eq!(json, r#"{"line":1,"column":1,"path":"","message":"first"}"#);
}

#[test]
fn a_hundred_problems_are_kept() {
    let mut found = Collector::default();
    while found.has_room() {
        found.push(0, String::new(), "wrong".into());
    }
    assert_eq!(found.finish("").problems.len(), 100);
}
