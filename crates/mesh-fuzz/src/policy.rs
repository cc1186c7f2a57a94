//! The policy, as an operator or the API may hand it in.

use mesh_policy::Policy;

/// Any text as a policy: it parses, or every problem can be told. What can be laid out means the same afterwards, and
/// laying it out again changes nothing.
pub(crate) fn policy(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let parsed = Policy::parse(text, None);
    if let Err(problems) = &parsed {
        drop(problems.to_string());
    }
    let Ok(laid_out) = mesh_policy::format(text) else { return };
    assert_eq!(mesh_policy::format(&laid_out).as_ref(), Ok(&laid_out), "laid out again");
    assert_eq!(Policy::parse(&laid_out, None).is_ok(), parsed.is_ok(), "laid out");
}
