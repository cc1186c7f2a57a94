//! The program: serve and the admin verbs.
fn main() {}
