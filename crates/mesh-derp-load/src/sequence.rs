//! What arrived of a numbered sequence of packets: in order, late, twice, or not at all.

/// How far behind the newest number a late one is told from a second one. Behind it, both count as late.
const WINDOW: u64 = 1024;

/// Bits in a word of the window.
const WORD_BITS: u64 = 64;

/// How a packet came, in view of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// After all that have come; this many in between have not.
    Next {
        /// Numbers that were passed over.
        skipped: u64,
    },
    /// After one with a higher number.
    Late,
    /// Again.
    Twice,
}

/// The receiving end of a sequence that begins with 0.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sequence {
    /// The number after the highest that has come.
    next: u64,
    /// Which of the last [`WINDOW`] numbers before `next` have come: bit `number % WINDOW`.
    seen: [u64; (WINDOW / WORD_BITS) as usize],
}

impl Sequence {
    /// Notes that `number` has come.
    pub(crate) fn receive(&mut self, number: u64) -> Arrival {
        if number >= self.next {
            let skipped = number - self.next;
            for passed in number.saturating_sub(WINDOW - 1).max(self.next)..number {
                let (word, bit) = place(passed);
                self.seen[word] &= !bit;
            }
            self.next = number + 1;
            let (word, bit) = place(number);
            self.seen[word] |= bit;
            return Arrival::Next { skipped };
        }
        let (word, bit) = place(number);
        if self.next - number <= WINDOW && self.seen[word] & bit != 0 {
            return Arrival::Twice;
        }
        if self.next - number <= WINDOW {
            self.seen[word] |= bit;
        }
        Arrival::Late
    }

    /// The number after the highest that has come.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }
}

fn place(number: u64) -> (usize, u64) {
    let slot = number % WINDOW;
    let word = usize::try_from(slot / WORD_BITS).expect("invariant: below WINDOW");
    (word, 1 << (slot % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn check(numbers: &[u64], expected: &[Arrival]) {
        let mut sequence = Sequence::default();
        let arrivals: Vec<_> = numbers.iter().map(|number| sequence.receive(*number)).collect();
        assert_eq!(arrivals, expected, "{numbers:?}");
    }

    #[test]
    fn gaps_late_ones_and_second_ones_are_told_apart() {
        let next = Arrival::Next { skipped: 0 };
        check(&[0, 1, 2], &[next; 3]);
        check(
            &[0, 3, 1, 1, 3],
            &[next, Arrival::Next { skipped: 2 }, Arrival::Late, Arrival::Twice, Arrival::Twice],
        );
    }

    #[test]
    fn behind_the_window_a_second_one_counts_as_late() {
        let far = Arrival::Next { skipped: WINDOW };
        check(
            &[0, WINDOW + 1, 0, 2, 2],
            &[Arrival::Next { skipped: 0 }, far, Arrival::Late, Arrival::Late, Arrival::Twice],
        );
    }

    proptest! {
        #[test]
        fn within_the_window_it_is_as_a_set_would_tell(steps in prop::collection::vec((0..40_u64, any::<bool>()), 1..300)) {
            let (mut sequence, mut seen) = (Sequence::default(), BTreeSet::new());
            let mut newest = 0;
            for (step, back) in steps {
                let number = if back { sequence.next().saturating_sub(step) } else { newest + step };
                newest = newest.max(number);
                let highest = seen.last().map_or(0, |last| last + 1);
                let expected = if number >= highest {
                    Arrival::Next { skipped: number - highest }
                } else if seen.contains(&number) {
                    Arrival::Twice
                } else {
                    Arrival::Late
                };
                prop_assert_eq!(sequence.receive(number), expected);
                seen.insert(number);
            }
        }

        #[test]
        fn long_leaps_leave_nothing_seen_behind(leap in 1..5 * WINDOW, behind in 1..WINDOW) {
            let mut sequence = Sequence::default();
            for number in 0..WINDOW {
                sequence.receive(number);
            }
            let number = WINDOW + leap;
            sequence.receive(number);
            let passed = number - behind;
            let expected = if passed < WINDOW { Arrival::Twice } else { Arrival::Late };
            prop_assert_eq!(sequence.receive(passed), expected);
        }
    }
}
