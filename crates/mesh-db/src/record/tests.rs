use std::net::Ipv4Addr;

use mesh_keys::NodePublic;
use mesh_model::{Hostinfo, RegisterMethod, Tag};

use super::*;

/// A row of text columns; `None` is NULL.
struct Texts(&'static [Option<&'static str>]);

impl Readable for Texts {
    fn int(&self, _: usize) -> Result<Option<i64>, sqlx::Error> {
        Ok(None)
    }

    fn text(&self, index: usize) -> Result<Option<String>, sqlx::Error> {
        Ok(self.0[index].map(str::to_owned))
    }

    fn flag(&self, _: usize) -> Result<Option<bool>, sqlx::Error> {
        Ok(None)
    }
}

fn read<T: Field>(text: Option<&'static str>) -> Result<T, String> {
    let row = [text];
    let row: &'static [_] = Box::leak(Box::new(row));
    T::read(&mut Reader::new(&Texts(row), &["it"])).map_err(|error| error.to_string())
}

#[test]
fn json_has_four_ways_to_be_empty() {
    for empty in [None, Some(""), Some("null"), Some("[]")] {
        assert_eq!(read::<Vec<Tag>>(empty), Ok(Vec::new()));
    }
    for empty in [None, Some(""), Some("null"), Some("{}")] {
        assert_eq!(read::<Hostinfo>(empty), Ok(Hostinfo::default()));
    }
}

#[test]
fn only_what_may_be_null_is_null() {
    assert_eq!(read::<String>(None), Err("column `it`: is NULL".to_owned()));
    assert_eq!(read::<Option<String>>(None), Ok(None));
    assert_eq!(read::<Option<String>>(Some("")), Ok(Some(String::new())));
}

#[test]
fn text_that_makes_no_sense_is_refused() {
    assert!(read::<NodePublic>(Some("mkey:00")).is_err());
    assert!(read::<Option<Ipv4Addr>>(Some("")).is_err());
    assert!(read::<RegisterMethod>(Some("AuthKey")).is_err());
    assert!(read::<Vec<Tag>>(Some("[\"web\"]")).is_err());
}

#[test]
fn what_no_engine_can_hold_is_refused() {
    let mut row = Row::new();
    assert_eq!("a\0".to_owned().write(&mut row), Err(Unfit::Nul));
    assert_eq!(u64::MAX.write(&mut row), Err(Unfit::TooLarge(u64::MAX)));
    assert_eq!(Timestamp::MAX.write(&mut row), Err(Unfit::TooLate(Timestamp::MAX)));
    assert_eq!(row, []);
    assert_eq!(Timestamp::MIN.write(&mut row), Ok(()));
}
