use crate::fake::{Run, program};

#[test]
fn the_program_says_what_it_can_do() {
    let run = Run::from(program("--help").output().unwrap());
    insta::assert_snapshot!(run.printed());
}

#[test]
fn a_relay_by_itself_says_how_it_is_run() {
    let run = Run::from(program("derp --help").output().unwrap());
    insta::assert_snapshot!(run.printed());
}

#[test]
fn a_verb_says_how_it_is_used() {
    let run = Run::from(program("nodes expire --help").output().unwrap());
    insta::assert_snapshot!(run.printed());
}
