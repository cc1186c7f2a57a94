//! Whose turn it is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Tasks that are ready. Whoever has had the least comes first, counted from when it joined those that are busy.
///
/// So a task that has little to do waits for one turn of the others at the most, however many they are, and
/// those that always have something to do get equal shares. Each turn has to cost something: whoever had some for
/// nothing would come before all others for ever.
#[derive(Debug, Default)]
pub(crate) struct RunQueue {
    ready: BinaryHeap<Reverse<(u64, u64, usize)>>,
    /// What the busy have had at least. It only grows.
    floor: u64,
    /// Numbers those that became ready, so that equals take turns.
    arrivals: u64,
}

impl RunQueue {
    /// Adds task `id`, of which `used` says what it has had so far. A task that was idle has no claim to what
    /// others had meanwhile.
    pub(crate) fn push(&mut self, id: usize, used: &mut u64) {
        *used = self.floor.max(*used);
        self.arrivals += 1;
        self.ready.push(Reverse((*used, self.arrivals, id)));
    }

    /// Takes the next task.
    pub(crate) fn pop(&mut self) -> Option<usize> {
        let Reverse((used, _, id)) = self.ready.pop()?;
        self.floor = used;
        Some(id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `turns` turns of tasks of which each uses `costs` at once and is ready again, and counts them.
    fn run(queue: &mut RunQueue, used: &mut [u64], costs: &[u64], turns: usize) -> Vec<usize> {
        let mut counts = vec![0; costs.len()];
        for _ in 0..turns {
            let id = queue.pop().expect("all are always ready");
            counts[id] += 1;
            used[id] += costs[id];
            queue.push(id, &mut used[id]);
        }
        counts
    }

    #[test]
    fn the_busy_share_by_what_their_turns_cost() {
        let (mut queue, costs) = (RunQueue::default(), [1, 2, 4]);
        let mut used = [0; 3];
        for (id, used) in used.iter_mut().enumerate() {
            queue.push(id, used);
        }
        let counts = run(&mut queue, &mut used, &costs, 700);
        for (count, expected) in counts.into_iter().zip([400, 200, 100_usize]) {
            assert!(count.abs_diff(expected) <= 3, "{count} turns of {expected}");
        }
    }

    #[test]
    fn who_was_idle_comes_next_and_has_saved_nothing() {
        let (mut queue, costs) = (RunQueue::default(), [10, 10, 10]);
        let mut used = [0; 3];
        for id in [0, 1] {
            queue.push(id, &mut used[id]);
        }
        run(&mut queue, &mut used, &costs, 100);
        queue.push(2, &mut used[2]);
        assert_eq!(queue.pop(), Some(2));
        used[2] += 10;
        queue.push(2, &mut used[2]);
        let counts = run(&mut queue, &mut used, &costs, 30);
        assert!(counts.iter().all(|count| (9..=11).contains(count)), "{counts:?}");
    }

    #[test]
    fn equals_take_turns_and_nobody_is_forgotten() {
        let mut queue = RunQueue::default();
        for id in [3, 1, 2] {
            queue.push(id, &mut 0);
        }
        assert_eq!(
            [queue.pop(), queue.pop(), queue.pop(), queue.pop()],
            [Some(3), Some(1), Some(2), None]
        );
        assert!(queue.is_empty());
    }
}
