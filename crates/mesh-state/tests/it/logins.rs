//! Logins that wait for an admin.

use mesh_model::{Owner, UserId};
use mesh_testkit::{at, auth_id, registration};

use crate::House;
use mesh_state::{Command, LoginLimits, LoginState, Outcome, Refusal, Registration, Settings};

#[test]
fn approved_login_registers_the_waiting_node() {
    let mut house = House::new();
    assert_eq!(house.register(registration(1, 1)), Ok(Outcome::NeedsLogin(auth_id(1))));
    let approve = Command::ApproveLogin { auth_id: auth_id(1), user: UserId(1) };
    let node = House::node(house.must(approve.clone()));
    assert_eq!(node.owner, Owner::User(UserId(1)));
    let followup = Registration { followup: Some(auth_id(1)), ..registration(1, 1) };
    assert_eq!(house.must_register(followup).id, node.id);
    assert_eq!(house.apply(approve), Err(Refusal::LoginNotFound));
}

#[test]
fn asking_again_keeps_the_same_login() {
    let mut house = House::new();
    house.register(registration(1, 1)).expect("a login");
    let again = Registration { fresh_auth_id: auth_id(77), ..registration(1, 1) };
    assert_eq!(house.register(again), Ok(Outcome::NeedsLogin(auth_id(1))));
    assert_eq!(house.logins().len(), 1);
}

#[test]
fn rejected_login_is_told_once_and_a_new_one_may_start() {
    let mut house = House::new();
    house.register(registration(1, 1)).expect("a login");
    house.must(Command::RejectLogin { auth_id: auth_id(1) });
    let followup = Registration { followup: Some(auth_id(1)), ..registration(1, 1) };
    assert_eq!(house.register(followup), Err(Refusal::LoginRejected));
    let afresh = Registration { fresh_auth_id: auth_id(77), ..registration(1, 1) };
    assert_eq!(house.register(afresh), Ok(Outcome::NeedsLogin(auth_id(77))));
}

#[test]
fn unknown_followup_starts_a_new_login() {
    let mut house = House::new();
    let lost = Registration { followup: Some(auth_id(9)), ..registration(1, 1) };
    assert_eq!(house.register(lost), Ok(Outcome::NeedsLogin(auth_id(1))));
}

#[test]
fn logins_run_out() {
    let mut house = House::new();
    house.register(registration(1, 1)).expect("a login");
    assert_eq!(house.state.next_deadline(), Some(at(60)), "the grace after the start");
    house.now = at(15 * 60);
    house.must(Command::Sweep);
    assert!(house.logins().is_empty());
    let approve = Command::ApproveLogin { auth_id: auth_id(1), user: UserId(1) };
    assert_eq!(house.apply(approve), Err(Refusal::LoginNotFound));
}

#[test]
fn waiting_logins_are_bounded_in_all_and_by_subnet() {
    let logins =
        LoginLimits { pending_max: 3, per_subnet_max: 2, lifetime: std::time::Duration::MAX };
    let mut house = House::with(Settings { logins, ..Settings::default() });
    let subnet = "192.0.2.0/24".parse().ok();
    for number in 1..=2 {
        let from_subnet = Registration { subnet, ..registration(number, number) };
        house.register(from_subnet).expect("a login");
    }
    let third = Registration { subnet, ..registration(3, 3) };
    assert_eq!(house.register(third), Err(Refusal::TooManyLogins));
    for number in 4..=9 {
        house.now = at(i64::try_from(number).expect("small"));
        house.register(registration(number, number)).expect("a login");
        assert!(house.logins().len() <= 3);
    }
    let logins = house.logins();
    let newest = logins.get(&auth_id(9)).expect("the newest stays");
    assert_eq!(newest.state, LoginState::Waiting);
}
