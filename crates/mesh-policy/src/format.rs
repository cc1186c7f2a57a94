//! Lays HuJSON out: comments and order stay, white space follows rules.
//!
//! An object or list stands on one line if it did and fits, else it has a line for each entry, indented with tabs.
//! Values of members on neighbouring lines are aligned. There is at most one blank line between entries. Comments
//! stand on lines of their own before an entry, or behind one on its line; comments elsewhere move there. Entries of
//! their own line end with a comma, the last too unless the text is plain JSON: plain JSON stays plain.
//!
//! After the behaviour of `Format` in <https://github.com/tailscale/hujson>, which differs in where it leaves comments
//! in the middle of a member.

use crate::hujson::comment_length;
use crate::parse::{POLICY_BYTES_MAX, check_syntax};
use crate::problem::{Collector, Problems, Refusal};

/// What fits on one line, in characters from an opening bracket to its closing one.
const WIDTH_MAX: usize = 80;

/// How many members on neighbouring lines are aligned together: of more, these many at a time.
const ROWS_MAX: usize = 1_000;

/// How many comments may stand in one place, which is more than anybody writes: they are gathered to be placed.
const COMMENTS_MAX: usize = 10_000;

/// Lays a text out. Laying out what has been laid out changes nothing.
///
/// # Errors
/// The first syntax error; that the text is longer than [`POLICY_BYTES_MAX`], as it is or laid out; that there are too
/// many comments in one place.
pub fn format(text: &str) -> Result<String, Problems> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let refused = |offset, refusal: Refusal| {
        let mut problems = Collector::default();
        problems.push(offset, String::new(), refusal);
        problems.finish(text)
    };
    if text.len() > POLICY_BYTES_MAX {
        return Err(refused(0, "the policy is longer than 4 MiB".into()));
    }
    if let Err(error) = check_syntax(text) {
        return Err(refused(error.offset, error.into()));
    }
    let formatter = Formatter::new(text);
    if formatter.plan.comments_most > COMMENTS_MAX {
        let message = format!("more than {COMMENTS_MAX} comments stand in one place");
        return Err(refused(0, message.into()));
    }
    let too_long = "laid out, the policy is longer than 4 MiB";
    formatter.format().ok_or_else(|| refused(0, too_long.into()))
}

/// A token, and the white space and comments before it. At the end of the text the token is empty.
#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    extra: &'a str,
    text: &'a str,
}

impl Token<'_> {
    fn is_open(self) -> bool {
        matches!(self.text, "{" | "[")
    }

    fn is_close(self) -> bool {
        matches!(self.text, "}" | "]")
    }
}

/// The tokens of a text without syntax errors.
#[derive(Debug, Clone)]
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Token<'a> {
        let (extra, rest) = self.rest.split_at(extra_length(self.rest));
        let (text, rest) = rest.split_at(token_length(rest));
        self.rest = rest;
        Token { extra, text }
    }
}

/// How many bytes of white space and comments a text begins with.
fn extra_length(text: &str) -> usize {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        match comment_length(rest) {
            0 => return text.len() - rest.len(),
            length => rest = &rest[length..],
        }
    }
}

fn token_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    match bytes.first() {
        None => 0,
        Some(b'{' | b'}' | b'[' | b']' | b':' | b',') => 1,
        Some(b'"') => {
            let mut is_escaped = false;
            let end = bytes.iter().skip(1).position(|byte| {
                let ends = *byte == b'"' && !is_escaped;
                is_escaped = *byte == b'\\' && !is_escaped;
                ends
            });
            end.map_or(text.len(), |end| end + 2)
        }
        Some(_) => {
            let is_end = |byte: &u8| !byte.is_ascii_alphanumeric() && !b"+-._".contains(byte);
            bytes.iter().position(is_end).unwrap_or(text.len())
        }
    }
}

/// A comment, and how many line ends stand between it and what is before it.
#[derive(Debug, Clone, Copy)]
struct Comment<'a> {
    text: &'a str,
    newlines: usize,
}

/// How many comments there are in white space.
fn count_comments(extra: &str) -> usize {
    let mut count = 0;
    let mut rest = extra;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        match comment_length(rest) {
            0 => return count,
            length => rest = &rest[length..],
        }
        count += 1;
    }
}

/// The comments of white space, and the line ends after the last.
fn comments(extra: &str) -> (Vec<Comment<'_>>, usize) {
    let mut found = Vec::new();
    let mut rest = extra;
    loop {
        let inside = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let newlines = newlines(&rest[..rest.len() - inside.len()]);
        let length = comment_length(inside);
        if length == 0 {
            return (found, newlines);
        }
        found.push(Comment { text: inside[..length].trim_end(), newlines });
        rest = &inside[length..];
    }
}

/// How many line ends there are.
#[expect(clippy::naive_bytecount, reason = "it is vectorised, and a crate for it would not pay")]
pub(crate) fn newlines(text: &str) -> usize {
    text.as_bytes().iter().filter(|byte| **byte == b'\n').count()
}

/// A container while it is measured.
#[derive(Debug, Clone, Copy)]
struct Measure {
    index: usize,
    width: usize,
    is_spread: bool,
}

/// What the whole text is like, from a first pass over it.
#[derive(Debug, Default)]
struct Plan {
    /// For each object and list, in the order of their opening: whether it has a line for each entry.
    is_spread: Vec<bool>,
    /// Whether there is neither a comment nor a comma after a last entry.
    is_plain: bool,
    /// The most comments in one place.
    comments_most: usize,
}

impl Plan {
    fn new(text: &str) -> Self {
        let mut plan = Self { is_plain: true, ..Self::default() };
        let mut open: Vec<Measure> = Vec::new();
        let mut tokens = Tokens { rest: text };
        let mut before = "";
        loop {
            let token = tokens.next();
            let is_last_comma = token.is_close() && before == ",";
            plan.is_plain &= !is_last_comma && !token.extra.contains('/');
            plan.comments_most = plan.comments_most.max(count_comments(token.extra));
            if let Some(inner) = open.last_mut() {
                let is_empty = token.is_close() && matches!(before, "{" | "[");
                let is_edge = token.is_close() || matches!(before, "{" | "[" | ",");
                let breaks = is_edge && !is_empty && token.extra.contains('\n');
                inner.is_spread |= breaks || token.extra.contains('/');
                inner.width += width(token.text);
            }
            if token.is_open() {
                open.push(Measure { index: plan.is_spread.len(), width: 1, is_spread: false });
                plan.is_spread.push(false);
            } else if token.is_close() {
                plan.close(&mut open);
            } else if token.text.is_empty() {
                return plan;
            }
            before = token.text;
        }
    }

    fn close(&mut self, open: &mut Vec<Measure>) {
        let Some(inner) = open.pop() else { return };
        let is_spread = inner.is_spread || inner.width > WIDTH_MAX;
        self.is_spread[inner.index] = is_spread;
        if let Some(outer) = open.last_mut() {
            outer.is_spread |= is_spread;
            // The opening bracket has been counted by both.
            outer.width += inner.width - 1;
        }
    }
}

/// How wide a token is on a line, the blank after it included.
fn width(token: &str) -> usize {
    match token {
        "," | ":" => 2,
        _ => token.chars().count(),
    }
}

/// A member whose value may be moved to stand below others.
#[derive(Debug, Clone, Copy)]
struct Row {
    /// Where in the output its value begins.
    value: usize,
    /// How wide its name is.
    width: usize,
}

struct Formatter<'a> {
    tokens: Tokens<'a>,
    plan: Plan,
    /// How many objects and lists have been opened.
    opened: usize,
    depth: usize,
    rows: Vec<Row>,
    out: String,
    /// Whether something was left out, for `out` would have become longer than a policy may be.
    is_full: bool,
}

impl<'a> Formatter<'a> {
    fn new(text: &'a str) -> Self {
        let text = text.trim_start_matches('\u{feff}');
        // Room that doubles comes to what a policy may have, and not beyond.
        let out = String::with_capacity(text.len().next_power_of_two());
        let tokens = Tokens { rest: text };
        let plan = Plan::new(text);
        Self { tokens, plan, opened: 0, depth: 0, rows: Vec::new(), out, is_full: false }
    }

    fn push(&mut self, text: &str) {
        self.is_full |= self.out.len() + text.len() > POLICY_BYTES_MAX;
        if !self.is_full {
            self.out.push_str(text);
        }
    }

    /// The text laid out; none if that is longer than a policy may be.
    fn format(mut self) -> Option<String> {
        let token = self.tokens.next();
        let (before, newlines) = comments(token.extra);
        for comment in &before {
            self.line(comment.newlines);
            self.comment(comment.text);
        }
        if !before.is_empty() {
            self.line(newlines);
        }
        self.value(token);
        let (after, _) = comments(self.tokens.next().extra);
        let rest = self.behind(&after);
        for comment in rest {
            self.line(comment.newlines);
            self.comment(comment.text);
        }
        self.push("\n");
        (!self.is_full).then_some(self.out)
    }

    fn value(&mut self, token: Token<'a>) {
        self.push(token.text);
        if !token.is_open() {
            return;
        }
        self.opened += 1;
        if self.plan.is_spread[self.opened - 1] {
            self.depth += 1;
            self.spread();
        } else {
            self.on_one_line();
        }
    }

    /// The rest of an object or list, on the line that it begins on.
    fn on_one_line(&mut self) {
        let mut has_comma = false;
        loop {
            let token = self.tokens.next();
            if token.is_close() {
                self.push(token.text);
                return;
            }
            if std::mem::take(&mut has_comma) {
                self.push(", ");
            }
            match token.text {
                "," => has_comma = true,
                ":" => self.push(": "),
                _ => self.value(token),
            }
        }
    }

    /// The rest of an object or list, a line for each entry.
    fn spread(&mut self) {
        let outer_rows = std::mem::take(&mut self.rows);
        // Comments between an entry and its comma.
        let mut pending = Vec::new();
        let mut pending_newlines = 0;
        let mut is_first = true;
        let mut token = self.tokens.next();
        loop {
            let (mut found, mut newlines) = comments(token.extra);
            match found.first_mut() {
                Some(comment) => comment.newlines = comment.newlines.max(pending_newlines),
                None => newlines = newlines.max(pending_newlines),
            }
            if !token.is_close() && !token.extra.contains('\n') {
                for comment in &mut found {
                    comment.newlines = comment.newlines.max(1);
                }
            }
            pending.extend(found);
            let above = self.behind(&pending).to_vec();
            if token.is_close() {
                self.close(&above, is_first, token);
                self.rows = outer_rows;
                return;
            }
            self.entry(token, above, newlines, is_first);
            is_first = false;
            let after = self.tokens.next();
            (pending, pending_newlines) = comments(after.extra);
            if after.text == "," {
                self.push(",");
                if pending.is_empty() {
                    pending_newlines = 0;
                }
                token = self.tokens.next();
            } else {
                if !self.plan.is_plain {
                    self.push(",");
                }
                (pending, pending_newlines) = (Vec::new(), 0);
                token = after;
            }
        }
    }

    /// One entry, with the comments above it.
    fn entry(
        &mut self,
        first: Token<'a>,
        mut above: Vec<Comment<'a>>,
        newlines: usize,
        is_first: bool,
    ) {
        let mut name = None;
        let mut value = first;
        if first.text.starts_with('"') {
            let mut ahead = self.tokens.clone();
            let colon = ahead.next();
            if colon.text == ":" {
                value = ahead.next();
                name = Some(first.text);
                self.tokens = ahead;
                above.extend(
                    comments(colon.extra)
                        .0
                        .into_iter()
                        .chain(comments(value.extra).0)
                        .map(|comment| Comment { newlines: 1, ..comment }),
                );
            }
        }
        let is_apart = newlines > 1 || !above.is_empty();
        let will_spread = value.is_open() && self.plan.is_spread[self.opened];
        if is_apart || will_spread {
            self.align();
        }
        self.above(&above, is_first);
        self.line(if is_first && above.is_empty() { 1 } else { newlines });
        if let Some(name) = name {
            self.push(name);
            self.push(": ");
            if !will_spread {
                if self.rows.len() == ROWS_MAX {
                    self.align();
                }
                self.rows.push(Row { value: self.out.len(), width: name.chars().count() });
            }
        }
        self.value(value);
    }

    fn close(&mut self, above: &[Comment<'a>], is_first: bool, token: Token<'_>) {
        self.align();
        self.above(above, is_first);
        self.depth -= 1;
        self.line(1);
        self.push(token.text);
    }

    /// Comments on lines of their own.
    fn above(&mut self, comments: &[Comment<'a>], is_first: bool) {
        for (index, comment) in comments.iter().enumerate() {
            self.line(if is_first && index == 0 { 1 } else { comment.newlines });
            self.comment(comment.text);
        }
    }

    /// Writes the comments that stand on the present line, and returns the others.
    fn behind<'c>(&mut self, comments: &'c [Comment<'a>]) -> &'c [Comment<'a>] {
        let mut count = 0;
        for comment in comments.iter().take_while(|comment| comment.newlines == 0) {
            self.push(" ");
            self.comment(comment.text);
            count += 1;
        }
        &comments[count..]
    }

    /// Begins a line, after a blank one if there were several line ends.
    fn line(&mut self, newlines: usize) {
        if self.out.is_empty() {
            return;
        }
        self.push("\n");
        if newlines > 1 {
            self.push("\n");
        }
        self.indent();
    }

    fn indent(&mut self) {
        for _ in 0..self.depth {
            self.push("\t");
        }
    }

    /// A comment; the lines of a long one are indented anew.
    fn comment(&mut self, text: &'a str) {
        let mut lines = text.split('\n').map(str::trim_end);
        self.push(lines.next().unwrap_or_default());
        let filled = || lines.clone().filter(|line| !line.is_empty());
        let unindented = |line: &'a str| &line[margin(line).len()..];
        let has_stars = filled().all(|line| unindented(line).starts_with('*'));
        let is_end = |line: &'a str| unindented(line) == "*/";
        let margins = filled().filter(|line| !is_end(line)).map(margin);
        let common = margins.reduce(|one, other| common_start(one, other)).map_or(0, str::len);
        for line in lines.clone() {
            self.push("\n");
            if line.is_empty() {
                continue;
            }
            self.indent();
            if has_stars {
                self.push(" ");
                self.push(unindented(line));
            } else if is_end(line) {
                self.push("*/");
            } else {
                self.push(&line[common..]);
            }
        }
    }

    /// Moves the values of the rows below each other.
    fn align(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        let Some(first) = rows.first() else { return };
        let widest = rows.iter().map(|row| row.width).max().unwrap_or_default();
        let tail = self.out.split_off(first.value);
        let mut from = 0;
        for row in &rows {
            let to = row.value - first.value;
            self.push(&tail[from..to]);
            for _ in row.width..widest {
                self.push(" ");
            }
            from = to;
        }
        self.push(&tail[from..]);
    }
}

/// The blanks and tabs that a line begins with.
fn margin(line: &str) -> &str {
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

fn common_start<'a>(one: &'a str, other: &str) -> &'a str {
    let same = one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other);
    &one[..same.count()]
}

#[cfg(test)]
mod tests;
