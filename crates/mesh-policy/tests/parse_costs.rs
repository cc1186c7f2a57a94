//! What hostile policies cost: never more than [`BYTES_PER_BYTE_MAX`] of memory for a byte of text, and time that
//! grows as the text does.
//!
//! A test binary of its own, for its allocator counts what is taken.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mesh_policy::Policy;
use rustix::time::{ClockId, clock_gettime};

/// How many bytes parsing or laying out may take at once for a byte of text.
const BYTES_PER_BYTE_MAX: usize = 10;

/// The length of texts whose memory is compared with it; a shorter one may cost what these may.
const TEXT_BYTES: usize = 1 << 20;

/// The length of texts whose time is compared with that of texts four times as long: small enough for caches.
const TIMED_BYTES: usize = 1 << 15;

/// How much longer than another a text may take that is four times as long.
const GROWTH_MAX: u32 = 6;

/// Times below this are as good as none.
const BRIEF: Duration = Duration::from_millis(20);

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The tests here run one after the other: the counters are the process's.
static TURN: Mutex<()> = Mutex::new(());

struct Counting;

#[expect(unsafe_code, reason = "an allocator is an unsafe trait; this one hands everything on")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let taken = TAKEN.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(taken, Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that was taken at once while something was done.
fn peak_of(work: impl FnOnce()) -> usize {
    let before = TAKEN.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    work();
    PEAK.load(Ordering::Relaxed) - before
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

fn time_of(work: impl Fn()) -> Duration {
    let start = cpu_time();
    work();
    cpu_time().saturating_sub(start)
}

/// Whether the time of something grows faster than its text, thrice measured: a machine has more to do than this.
fn is_slow(shape: &Shape, work: &impl Fn(&str)) -> bool {
    let (short, long) = (shape.text(TIMED_BYTES), shape.text(4 * TIMED_BYTES));
    (0..3).all(|_| {
        let (short, long) = (time_of(|| work(&short)), time_of(|| work(&long)));
        long > BRIEF && long > GROWTH_MAX * short
    })
}

/// A text that repeats something until it is long enough.
struct Shape {
    name: &'static str,
    head: &'static str,
    each: fn(usize) -> String,
    tail: &'static str,
}

impl Shape {
    fn text(&self, length: usize) -> String {
        let mut text = self.head.to_owned();
        for index in 0.. {
            let next = (self.each)(index);
            if text.len() + next.len() + self.tail.len() > length {
                break;
            }
            text.push_str(&next);
        }
        text + self.tail
    }
}

const fn shape(
    name: &'static str,
    head: &'static str,
    each: fn(usize) -> String,
    tail: &'static str,
) -> Shape {
    Shape { name, head, each, tail }
}

/// A short text for each number.
fn any_number(index: usize) -> String {
    const DIGITS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut rest = index;
    let mut text = String::new();
    loop {
        text.push(char::from(DIGITS[rest % DIGITS.len()]));
        rest /= DIGITS.len();
        if rest == 0 {
            return text;
        }
    }
}

/// The rest of a set of many ranges, and then sets of that one.
fn fan(index: usize) -> String {
    let name = any_number(index);
    if index < 1_000 {
        let address = format!("{:x}:{:x}::", 0x2000 + 2 * (index >> 12), index << 2 & 0xfffc);
        return format!("\"{address}\",");
    }
    if index == 1_000 {
        return r#""::"],"#.to_owned();
    }
    format!(r#""ipset:{name}":["ipset:a"],"#)
}

/// Lists of as many rules as a list may have, each rule as small as it may be.
fn empty_rules(index: usize) -> String {
    let sections = ["nodeAttrs", "tests", "sshTests", "acls"];
    let (section, rule) = (index / 20_000, index % 20_000);
    let least = if section < 3 { "{}" } else { r#"{"action":"accept"}"# };
    let end = if section == 0 { '}' } else { ']' };
    match (rule, sections.get(section)) {
        (0, Some(name)) => format!("{end},\"{name}\":[{least}"),
        _ => format!(",{least}"),
    }
}

const ACL: &str = r#"{"acls":[{"action":"accept","src":["#;

#[expect(clippy::too_many_lines, reason = "a table")]
fn shapes() -> Vec<Shape> {
    let digit = |_| "0,".to_owned();
    let object = |_| "{},".to_owned();
    let empty = |_| r#""","#.to_owned();
    vec![
        shape("open lists", "", |_| "[".to_owned(), ""),
        shape("numbers for rules", r#"{"acls":["#, digit, "]}"),
        shape("empty acls", r#"{"acls":["#, object, "]}"),
        shape("empty grants", r#"{"grants":["#, object, "]}"),
        shape("empty ssh", r#"{"ssh":["#, object, "]}"),
        shape("empty tests", r#"{"tests":["#, object, "]}"),
        shape("empty sshTests", r#"{"sshTests":["#, object, "]}"),
        shape("empty nodeAttrs", r#"{"nodeAttrs":["#, object, "]}"),
        shape("empty rules of all kinds", r#"{"hosts":{"#, empty_rules, "]}"),
        shape(
            "short acls",
            r#"{"acls":["#,
            |_| r#"{"action":"accept","src":["*"],"dst":["*:*"]},"#.to_owned(),
            "]}",
        ),
        shape(
            "short grants",
            r#"{"grants":["#,
            |_| r#"{"src":["*"],"dst":["*"],"ip":["*"]},"#.to_owned(),
            "]}",
        ),
        shape(
            "short app grants",
            r#"{"grants":["#,
            |_| r#"{"app":{"a/b":null}},"#.to_owned(),
            "]}",
        ),
        shape(
            "short ssh",
            r#"{"ssh":["#,
            |_| r#"{"action":"accept","users":["a"]},"#.to_owned(),
            "]}",
        ),
        shape("the same source", ACL, |_| r#""*","#.to_owned(), "]}]}"),
        shape(
            "sources that are users",
            ACL,
            |index| format!("\"{}@\",", any_number(index)),
            "]}]}",
        ),
        shape("sources that are addresses", ACL, |index| format!("\"::{index:x}\","), "]}]}"),
        shape("sources that are wrong", ACL, |index| format!("\"tag:{index}\","), "]}]}"),
        shape(
            "sources that are hosts",
            r#"{"hosts":{"#,
            |index| match index {
                0..50_000 => format!(r#""{}":"::","#, any_number(index)),
                50_000 => r#""z1z1":"::"},"acls":[{"action":"accept","src":["#.to_owned(),
                _ => format!(r#""{}","#, any_number((index - 50_001) % 50_000)),
            },
            "]}]}",
        ),
        shape(
            "destinations",
            r#"{"acls":[{"action":"accept","dst":["#,
            |_| r#""*:1","#.to_owned(),
            "]}]}",
        ),
        shape(
            "lists of ports",
            r#"{"acls":[{"action":"accept","dst":["#,
            |_| r#""*:1,2","#.to_owned(),
            "]}]}",
        ),
        shape(
            "a list of ports",
            r#"{"acls":[{"action":"accept","dst":["*:1"#,
            |_| ",1".to_owned(),
            r#""]}]}"#,
        ),
        shape("ports of grants", r#"{"grants":[{"ip":["#, |_| r#""1,2","#.to_owned(), "]}]}"),
        shape(
            "capabilities",
            r#"{"grants":[{"app":{"#,
            |index| format!(r#""a/{}":[],"#, any_number(index)),
            "}}]}",
        ),
        shape(
            "the same capability",
            r#"{"grants":[{"app":{"#,
            |_| r#""a/b":[],"#.to_owned(),
            "}}]}",
        ),
        shape(
            "attributes with values",
            r#"{"nodeAttrs":[{"app":{"#,
            |index| format!(r#""{}":[],"#, any_number(index)),
            "}}]}",
        ),
        shape(
            "values",
            r#"{"nodeAttrs":[{"app":{"a":["#,
            |index| format!("{},", index % 10_000),
            "]}}]}",
        ),
        shape("small apps", r#"{"nodeAttrs":["#, |_| r#"{"app":{"":[]}},"#.to_owned(), "]}"),
        shape("attributes", r#"{"nodeAttrs":[{"attr":["#, empty, "]}]}"),
        shape(
            "longer attributes",
            r#"{"nodeAttrs":[{"attr":["#,
            |_| r#""abc","#.to_owned(),
            "]}]}",
        ),
        shape("pools", r#"{"nodeAttrs":[{"ipPool":["#, |_| r#""1.1.1.1","#.to_owned(), "]}]}"),
        shape(
            "groups",
            r#"{"groups":{"#,
            |index| format!(r#""group:{}":[],"#, any_number(index)),
            "}}",
        ),
        shape("the same group", r#"{"groups":{"#, |_| r#""group:a":[],"#.to_owned(), "}}"),
        shape(
            "groups of one",
            r#"{"groups":{"#,
            |index| format!(r#""group:{}":["@"],"#, any_number(index)),
            "}}",
        ),
        shape("members", r#"{"groups":{"group:a":["#, |_| r#""@ab","#.to_owned(), "]}}"),
        shape("hosts", r#"{"hosts":{"#, |index| format!(r#""{}":"::","#, any_number(index)), "}}"),
        shape(
            "tags",
            r#"{"tagOwners":{"#,
            |index| format!(r#""tag:a{}":[],"#, any_number(index)),
            "}}",
        ),
        shape(
            "names that are wrong",
            r#"{"tagOwners":{"#,
            |index| format!(r#""{}":[],"#, any_number(index)),
            "}}",
        ),
        shape(
            "ipsets",
            r#"{"ipsets":{"#,
            |index| format!(r#""ipset:{}":[],"#, any_number(index)),
            "}}",
        ),
        shape(
            "ipsets of one",
            r#"{"ipsets":{"#,
            |index| format!(r#""ipset:{}":["::"],"#, any_number(index)),
            "}}",
        ),
        shape(
            "ipsets in a chain",
            r#"{"ipsets":{"#,
            |index| format!(r#""ipset:{index}":["ipset:{}"],"#, index + 1),
            "}}",
        ),
        shape("ipsets in ipsets", r#"{"ipsets":{"ipset:a":["#, fan, "}}"),
        shape("wrong entries of an ipset", r#"{"ipsets":{"ipset:a":["#, empty, "]}}"),
        shape(
            "addresses of an ipset",
            r#"{"ipsets":{"ipset:a":["#,
            |index| format!("\"{:x}::\",", (2 * index) & 0xffff),
            "]}}",
        ),
        shape(
            "turns of an ipset",
            r#"{"ipsets":{"ipset:a":["#,
            |index| format!("\"{}10.0.0.{}\",", ["", "remove "][index % 2], index % 256),
            "]}}",
        ),
        shape(
            "values of a posture",
            r#"{"postures":{"posture:a":["a:b IN [1"#,
            |_| ",1".to_owned(),
            r#"]"]}}"#,
        ),
        shape(
            "commas in a posture",
            r#"{"postures":{"posture:a":["a:b IN ['"#,
            |_| ",".to_owned(),
            r#"']"]}}"#,
        ),
        shape("conditions", r#"{"postures":{"posture:a":["#, |_| r#""a:b>1","#.to_owned(), "]}}"),
        shape(
            "postures",
            r#"{"postures":{"#,
            |index| format!(r#""posture:{}":["a:b>1"],"#, any_number(index)),
            "}}",
        ),
        shape(
            "postures of nothing",
            r#"{"postures":{"#,
            |index| format!(r#""posture:{}":[],"#, any_number(index)),
            "}}",
        ),
        shape("the default posture", r#"{"defaultSrcPosture":["#, |_| r#""a","#.to_owned(), "]}"),
        shape("logins", r#"{"ssh":[{"users":["#, |_| r#""abc","#.to_owned(), "]}]}"),
        shape(
            "domains of logins",
            r#"{"ssh":[{"users":["#,
            |_| r#""localpart:*@a","#.to_owned(),
            "]}]}",
        ),
        shape("destinations of ssh", r#"{"ssh":[{"dst":["#, |_| r#""@","#.to_owned(), "]}]}"),
        shape("environment", r#"{"ssh":[{"acceptEnv":["#, |_| r#""abc","#.to_owned(), "]}]}"),
        shape(
            "approved routes",
            r#"{"autoApprovers":{"routes":{"#,
            |index| format!(r#""{index:x}::/9":[],"#),
            "}}}",
        ),
        shape("approvers", r#"{"autoApprovers":{"exitNode":["#, |_| r#""@","#.to_owned(), "]}}"),
        shape("tests", r#"{"tests":[{"accept":["#, |_| r#""abc","#.to_owned(), "]}]}"),
        shape(
            "small tests",
            r#"{"tests":["#,
            |_| r#"{"src":"a","accept":["a"],"deny":["a"]},"#.to_owned(),
            "]}",
        ),
        shape(
            "small tests of ssh",
            r#"{"sshTests":["#,
            |_| r#"{"src":"a","dst":["a"],"accept":["a"],"deny":["a"],"check":["a"]},"#.to_owned(),
            "]}",
        ),
        shape(
            "destinations of sshTests",
            r#"{"sshTests":[{"dst":["#,
            |_| r#""a","#.to_owned(),
            "]}]}",
        ),
        shape("unknown sections", "{", |index| format!(r#""{}":0,"#, any_number(index)), "}"),
        shape("escapes", r#"{"groups":{"group:a":["#, |_| r#""\n@b","#.to_owned(), "]}}"),
        shape("comments", "{", |_| "/**/".to_owned(), "}"),
        shape("comments on lines", "{", |_| "//\n".to_owned(), "}"),
        shape("comments between entries", "[", |_| "0/**/,".to_owned(), "]"),
        shape("members on lines", "{\n", |_| "\"\":0,".to_owned(), "}"),
        shape("lists in a list", "[", |_| "[],".to_owned(), "]"),
        shape("lists on lines", "[\n", |_| "[\n],".to_owned(), "]"),
        shape(
            "deep entries",
            "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
            |_| "0,".to_owned(),
            "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
        ),
        shape(
            "a comment of many lines",
            "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n/*",
            |_| "a\n".to_owned(),
            "*/]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
        ),
    ]
}

/// No shape costs too much.
fn check(work: impl Fn(&str)) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut wrong = Vec::new();
    for shape in shapes() {
        let text = shape.text(TEXT_BYTES);
        let peak = peak_of(|| work(&text));
        if peak > BYTES_PER_BYTE_MAX * text.len() {
            wrong.push(format!("{}: {peak} bytes for {}", shape.name, text.len()));
        }
        if is_slow(&shape, &work) {
            wrong.push(format!("{}: time grows faster than the text", shape.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_policy_costs_more_than_its_length_allows() {
    check(|text| drop(Policy::parse(text, None)));
}

#[test]
fn no_policy_costs_more_to_lay_out_than_its_length_allows() {
    check(|text| drop(mesh_policy::format(text)));
}
