use super::*;

const DST: NodePublic = NodePublic::from_bytes([7; 32]);

fn check(frame: ClientFrame<'_>, expected: Action<'_>) {
    assert_eq!(ClientState::new(false, Instant::now()).handle_frame(&frame), expected);
}

#[test]
fn frames_ask_for_what_they_say() {
    let payload = b"wireguard".as_slice();
    check(
        ClientFrame::SendPacket { dst: DST, payload },
        Action::Forward { dst: DST, kind: PacketKind::Data, payload },
    );
    let disco = [b"TS\xf0\x9f\x92\xac".as_slice(), &[0; 56]].concat();
    check(
        ClientFrame::SendPacket { dst: DST, payload: &disco },
        Action::Forward { dst: DST, kind: PacketKind::Disco, payload: &disco },
    );
    check(ClientFrame::Ping([1; 8]), Action::Pong([1; 8]));
    check(ClientFrame::Pong([1; 8]), Action::Ignore);
}

#[test]
fn frames_of_the_mesh_are_for_those_with_the_key() {
    let (src, payload) = (NodePublic::from_bytes([8; 32]), b"wireguard".as_slice());
    let deliver = Action::Deliver { src, dst: DST, kind: PacketKind::Data, payload };
    for (frame_type, frame, action) in [
        (0x0a, ClientFrame::ForwardPacket { src, dst: DST, payload }, deliver),
        (0x10, ClientFrame::WatchConns, Action::Watch),
        (0x11, ClientFrame::ClosePeer(DST), Action::ClosePeer(DST)),
    ] {
        check(frame, Action::Close(CloseReason::MeshKeyMissing { frame_type }));
        assert_eq!(ClientState::new(true, Instant::now()).handle_frame(&frame), action);
    }
}

#[test]
fn home_counts_only_when_it_changes() {
    let mut state = ClientState::new(false, Instant::now());
    let mut note = |preferred| state.handle_frame(&ClientFrame::NotePreferred(preferred));
    assert_eq!(note(false), Action::Ignore);
    assert_eq!(note(true), Action::HomeChanged { home: true });
    assert_eq!(note(true), Action::Ignore);
    assert_eq!(note(false), Action::HomeChanged { home: false });
    assert_eq!(note(true), Action::HomeChanged { home: true });
    assert!(state.leave_home());
    assert!(!state.leave_home());
}

#[test]
fn only_disco_is_told_that_nobody_is_here_and_not_too_often() {
    let start = Instant::now();
    let mut state = ClientState::new(false, start);
    let at = |ms| start + Duration::from_millis(ms);
    assert!(!state.handle_absent(PacketKind::Data, at(0)));
    let mut answered = |ms, packets: u32| -> u32 {
        (0..packets).map(|_| u32::from(state.handle_absent(PacketKind::Disco, at(ms)))).sum()
    };
    assert_eq!(answered(0, 10), 3, "a burst");
    assert_eq!(answered(999, 10), 0);
    assert_eq!(answered(1000, 10), 1, "one a second");
    assert_eq!(answered(1500, 10), 0);
    assert_eq!(answered(3000, 10), 2);
    assert_eq!(answered(3_600_000, 10), 3, "a pause earns no more than a burst");
    assert_eq!(answered(3_600_999, 10), 0);
}
