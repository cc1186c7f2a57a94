//! Chores of the house: tidy, test, ci, bench, fuzz.
fn main() {}
