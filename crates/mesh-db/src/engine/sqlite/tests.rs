use super::*;
use crate::record::Value;

#[test]
fn any_number_of_rows_is_sent_in_few_different_lengths() {
    let mut lengths = std::collections::BTreeSet::new();
    for rows in 1..1000 {
        let mut rest = rows;
        while rest > 0 {
            let next = Sqlite::rows_at_once(rest);
            assert!((1..=rest).contains(&next), "{next} of {rest}");
            lengths.insert(next);
            rest -= next;
        }
    }
    assert_eq!(Vec::from_iter(lengths), [1, 2, 4, 8, 16, 32]);
}

#[test]
fn rows_are_values() {
    let row = vec![Value::Int(Some(1)), Value::Text(None)];
    let (sql, arguments) = Sqlite::relation(vec![row.clone(), row]).unwrap();
    assert_eq!(sql, "VALUES (?,?),(?,?)");
    assert_eq!(arguments.len(), 4);
}
