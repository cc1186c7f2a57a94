//! How far it is, for whoever looks on.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

/// Cells of the bar.
const CELLS: u32 = 40;

/// Least time between two looks of the bar.
const PAUSE: Duration = Duration::from_millis(100);

/// A bar on the terminal; nothing where standard error is none.
#[derive(Debug)]
pub(crate) struct Progress {
    total: u32,
    started_at: Instant,
    drawn_at: Option<Instant>,
    is_shown: bool,
}

impl Progress {
    /// A bar that is full at `total`, which is at least 1.
    pub(crate) fn new(total: u32) -> Self {
        let is_shown = stderr().is_terminal();
        Self { total, started_at: Instant::now(), drawn_at: None, is_shown }
    }

    /// Shows that `done` of the total are done.
    pub(crate) fn show(&mut self, done: u32) {
        let is_recent = self.drawn_at.is_some_and(|at| at.elapsed() < PAUSE);
        if !self.is_shown || is_recent && done < self.total {
            return;
        }
        self.drawn_at = Some(Instant::now());
        eprint!("\r{}", bar(done, self.total));
    }

    /// Ends the bar and says how it went.
    pub(crate) fn finish(self) {
        let line_feed = if self.is_shown { "\n" } else { "" };
        let seconds = self.started_at.elapsed().as_secs_f64();
        let rate = f64::from(self.total) / seconds;
        eprintln!("{line_feed}{} nodes in {seconds:.1} s, {rate:.0} a second", self.total);
    }
}

fn bar(done: u32, total: u32) -> String {
    let share = |of: u32| u64::from(done) * u64::from(of) / u64::from(total);
    let (full, percent) = (share(CELLS), share(100));
    let cells: String =
        (0..u64::from(CELLS)).map(|cell| if cell < full { '#' } else { '.' }).collect();
    format!("[{cells}] {percent:>3} % {done} nodes")
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn a_bar_fills_from_left_to_right() {
        assert_eq!(bar(0, 8), format!("[{}]   0 % 0 nodes", ".".repeat(40)));
        assert_eq!(bar(2, 8), format!("[{}{}]  25 % 2 nodes", "#".repeat(10), ".".repeat(30)));
        assert_eq!(bar(8, 8), format!("[{}] 100 % 8 nodes", "#".repeat(40)));
    }
}
