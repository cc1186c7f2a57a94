use std::cell::Cell;
use std::collections::HashSet;

use super::*;

#[derive(Default)]
struct Names {
    labels: Labels,
    taken: HashSet<String>,
    looked: Cell<u32>,
}

impl Names {
    fn take(&mut self, label: &str) -> String {
        let found = self.labels.first_free(label, |label| {
            self.looked.set(self.looked.get() + 1);
            !self.taken.contains(label)
        });
        self.taken.insert(found.clone());
        found
    }

    fn release(&mut self, label: &str) {
        self.taken.remove(label);
        self.labels.release(label);
    }
}

#[test]
fn the_smallest_free_number_is_given() {
    let mut names = Names::default();
    for expected in ["node", "node-1", "node-2", "node-3", "node-4"] {
        assert_eq!(names.take("node"), expected);
    }
    names.release("node-2");
    names.release("node-3");
    for expected in ["node-2", "node-3", "node-5"] {
        assert_eq!(names.take("node"), expected);
    }
    names.release("node");
    assert_eq!(names.take("node"), "node");
}

#[test]
fn a_number_that_was_looked_up_in_vain_is_not_lost() {
    let mut names = Names::default();
    names.take("node");
    names.take("node");
    assert_eq!(names.labels.first_free("node", |label| !names.taken.contains(label)), "node-2");
    assert_eq!(names.take("node"), "node-2");
}

#[test]
fn labels_that_end_in_a_number_lower_nothing_of_others() {
    let mut names = Names::default();
    for expected in ["web-1", "web", "web-2"] {
        let asked = if expected == "web-1" { "web-1" } else { "web" };
        assert_eq!(names.take(asked), expected);
    }
    names.release("web-1");
    assert_eq!(names.take("web"), "web-1");
}

#[test]
fn a_long_label_stays_unique_when_it_is_cut() {
    let mut names = Names::default();
    let long = "a".repeat(63);
    let taken: HashSet<String> = (0..50).map(|_| names.take(&long)).collect();
    assert_eq!(taken.len(), 50);
    names.release(&label_with_suffix(&long, 7));
    assert!(!taken.contains(&names.take(&long)) || names.taken.len() == 50);
}

#[test]
fn a_thousand_of_one_name_look_at_few() {
    let mut names = Names::default();
    for _ in 0..1000 {
        names.take("node");
    }
    assert!(names.looked.get() < 4000, "{} looks", names.looked.get());
}
