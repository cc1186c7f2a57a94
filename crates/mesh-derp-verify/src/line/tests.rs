use proptest::prelude::*;

use super::*;

fn key(number: u8) -> NodePublic {
    NodePublic::from_bytes([number; 32])
}

/// Reads what comes in these pieces.
fn read(pieces: &[&[u8]]) -> Result<Vec<Line>, LineError> {
    let mut lines = Lines::default();
    let mut read = Vec::new();
    for piece in pieces {
        lines.push(piece);
        while let Some(line) = lines.next()? {
            read.push(line);
        }
    }
    Ok(read)
}

proptest! {
    #[test]
    fn lines_come_back_as_they_were_in_whatever_pieces_they_come(
        lines in prop::collection::vec(
            (prop::collection::vec(0..9_u8, 0..9), prop::collection::vec(0..9_u8, 0..9), any::<bool>()),
            0..9,
        ),
        piece in 1..200_usize,
    ) {
        let keys = |numbers: Vec<u8>| numbers.into_iter().map(key).collect();
        let lines: Vec<Line> = lines
            .into_iter()
            .map(|(admitted, removed, complete)| {
                Line { admitted: keys(admitted), removed: keys(removed), complete }
            })
            .collect();
        let text = lines.iter().map(Line::encode).collect::<Vec<_>>().concat();
        let pieces: Vec<_> = text.chunks(piece).collect();
        prop_assert_eq!(read(&pieces).unwrap(), lines);
    }
}

#[test]
fn a_line_says_only_what_is_so() {
    assert_eq!(Line::default().encode(), "{}\n");
    let line = Line { complete: true, ..Line::default() };
    assert_eq!(line.encode(), "{\"complete\":true}\n");
    let line = Line { removed: vec![key(7)], ..Line::default() };
    assert_eq!(line.encode(), format!("{{\"removed\":[\"nodekey:{}\"]}}\n", "07".repeat(32)));
}

#[test]
fn what_later_servers_add_is_passed_over() {
    assert_eq!(read(&[b"{\"region\":7}\n"]).unwrap(), [Line::default()]);
}

#[test]
fn the_longest_line_that_is_sent_is_read() {
    let keys = vec![key(1); 2 * LINE_KEYS_MAX];
    let sent: Vec<_> = Line::list(&keys).collect();
    let text = sent.iter().map(Line::encode).collect::<Vec<_>>().concat();
    assert_eq!(read(&[&text]).unwrap(), sent);
    assert_eq!(sent.len(), 3);
}

#[test]
fn a_line_that_is_too_long_is_refused_before_its_end() {
    let text = vec![b' '; LINE_BYTES_MAX + 1];
    assert!(matches!(read(&[&text]), Err(LineError::TooLong)));
    let ended = [&text[..], b"{}\n"].concat();
    assert!(matches!(read(&[&ended]), Err(LineError::TooLong)));
}

#[test]
fn what_is_no_line_is_refused() {
    for text in [
        "\n",
        "[7]\n",
        "{\n",
        "<html>\n",
        "{\"admitted\":7}\n",
        "{\"admitted\":[\"nodekey:12\"]}\n",
    ] {
        assert!(matches!(read(&[text.as_bytes()]), Err(LineError::Malformed(_))), "{text}");
    }
}
