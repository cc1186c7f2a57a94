use proptest::prelude::*;

use super::*;

fn key(number: u8) -> NodePublic {
    NodePublic::from_bytes([number; 32])
}

fn list(fail_open: bool) -> Arc<NodeList> {
    Arc::new(NodeList::new(fail_open, Arc::default()))
}

/// Has a whole list told over a connection of its own, and says who is to be cut.
fn tell(list: &Arc<NodeList>, numbers: &[u8]) -> (Telling, Vec<NodePublic>) {
    let mut telling = Telling::new(Arc::clone(list));
    let keys: Vec<_> = numbers.iter().copied().map(key).collect();
    let mut gone = Vec::new();
    for line in Line::list(&keys) {
        assert!(!telling.is_complete() && gone.is_empty());
        gone = telling.handle_line(line).unwrap();
    }
    assert!(telling.is_complete());
    (telling, gone)
}

#[test]
fn before_the_first_list_nobody_is_admitted() {
    let list = list(false);
    assert!(!list.admits(&key(1)));
    let (_, gone) = tell(&list, &[1]);
    assert!(gone.is_empty());
    assert!(list.admits(&key(1)));
    assert!(!list.admits(&key(2)));
}

#[test]
fn who_was_let_in_on_trust_is_cut_unless_the_first_list_names_it() {
    let list = list(true);
    assert!(list.admits(&key(1)) && list.admits(&key(2)));
    let (_, gone) = tell(&list, &[2, 3]);
    assert_eq!(gone, [key(1)]);
    assert!(!list.admits(&key(1)));
    assert!(!list.admits(&key(4)), "trust ends with the first list");
}

#[test]
fn a_list_that_breaks_off_leaves_the_one_before_in_force() {
    let list = list(false);
    tell(&list, &[1, 2]);
    let mut telling = Telling::new(Arc::clone(&list));
    let line = Line { admitted: vec![key(3)], ..Line::default() };
    assert_eq!(telling.handle_line(line), Ok(Vec::new()));
    drop(telling);
    assert!(list.admits(&key(1)) && list.admits(&key(2)) && !list.admits(&key(3)));
}

#[test]
fn more_keys_than_there_is_room_for_change_nothing() {
    let list = list(false);
    let (mut telling, _) = tell(&list, &[1, 2]);
    let line =
        Line { admitted: vec![key(3); KEYS_MAX - 1], removed: vec![key(1)], ..Line::default() };
    assert_eq!(telling.handle_line(line), Err(TooManyKeys));
    assert!(list.admits(&key(1)) && !list.admits(&key(3)));
}

/// What a control server does.
#[derive(Debug, Clone)]
enum Event {
    Admit(u8),
    Remove(u8),
    /// The connection breaks, and the list changes by these before it is back.
    Break(Vec<u8>),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..9_u8).prop_map(Event::Admit),
        4 => (0..9_u8).prop_map(Event::Remove),
        1 => prop::collection::vec(0..9_u8, 0..9).prop_map(Event::Break),
    ];
    prop::collection::vec(event, 0..50)
}

proptest! {
    #[test]
    fn the_list_is_the_servers_and_who_leaves_it_is_told_once(events in events()) {
        let list = list(false);
        let (mut telling, _) = tell(&list, &[]);
        let mut model = std::collections::BTreeSet::new();
        for event in events {
            let before = model.clone();
            let gone = match event {
                Event::Admit(number) => {
                    model.insert(number);
                    let line = Line { admitted: vec![key(number)], ..Line::default() };
                    telling.handle_line(line).unwrap()
                }
                Event::Remove(number) => {
                    model.remove(&number);
                    let line = Line { removed: vec![key(number)], ..Line::default() };
                    telling.handle_line(line).unwrap()
                }
                Event::Break(numbers) => {
                    model = numbers.iter().copied().collect();
                    let (next, gone) = tell(&list, &numbers);
                    telling = next;
                    gone
                }
            };
            let mut gone: Vec<_> = gone.iter().map(|key| key.as_bytes()[0]).collect();
            gone.sort_unstable();
            prop_assert_eq!(gone, before.difference(&model).copied().collect::<Vec<_>>());
            for number in 0..9 {
                prop_assert_eq!(list.admits(&key(number)), model.contains(&number));
            }
        }
    }
}
