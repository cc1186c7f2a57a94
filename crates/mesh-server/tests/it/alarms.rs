//! What no test may leave behind: panics, and lines in the log that would get an operator out of bed.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, ThreadId};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Panics of this process and where they happened. A runtime of `#[tokio::test]` runs its tasks on the test's
/// own thread, and what blocks on threads of its own.
static PANICS: Mutex<Vec<(Place, String)>> = Mutex::new(Vec::new());

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Test(ThreadId),
    /// A thread of some test's runtime: whichever test looks first fails.
    Runtime,
}

/// Listens on the thread of one test. When it is dropped, the test fails on what was not announced.
pub(crate) struct Alarms {
    lines: Lines,
    expected: Mutex<Vec<&'static str>>,
    _listening: DefaultGuard,
}

/// WARN and ERROR lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Alarms {
    pub(crate) fn listen() -> Self {
        record_panics();
        let lines = Lines::default();
        let subscriber = tracing_subscriber::registry().with(lines.clone()).with(LevelFilter::WARN);
        let listening = tracing::subscriber::set_default(subscriber);
        Self { lines, expected: Mutex::default(), _listening: listening }
    }

    /// Announces lines that hold `text`; there must be one.
    pub(crate) fn expect(&self, text: &'static str) {
        lock(&self.expected).push(text);
    }

    /// What nobody announced.
    fn unexpected(&self) -> Vec<String> {
        let (lines, expected) = (lock(&self.lines.0), lock(&self.expected));
        let is_expected = |line: &&String| expected.iter().any(|text| line.contains(text));
        let mut unexpected: Vec<String> =
            lines.iter().filter(|line| !is_expected(line)).cloned().collect();
        let missing = expected.iter().filter(|text| !lines.iter().any(|line| line.contains(*text)));
        unexpected.extend(missing.map(|text| format!("no line says `{text}`")));
        let here = Place::Test(thread::current().id());
        let mut panics = lock(&PANICS);
        let is_ours = |place: &Place| *place == here || *place == Place::Runtime;
        unexpected.extend(panics.extract_if(.., |(place, _)| is_ours(place)).map(|(_, text)| text));
        unexpected
    }
}

impl Drop for Alarms {
    fn drop(&mut self) {
        if !thread::panicking() {
            let unexpected = self.unexpected();
            assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
        }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        lock(&self.0).push(line.0);
    }
}

/// An event as text: its level and all of its fields.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

fn record_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            previous(info);
            let thread = thread::current();
            let is_runtime = thread.name().is_some_and(|name| name.starts_with("tokio"));
            let place = if is_runtime { Place::Runtime } else { Place::Test(thread.id()) };
            lock(&PANICS).push((place, info.to_string()));
        }));
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
