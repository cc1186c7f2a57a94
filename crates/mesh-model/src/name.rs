//! Names of nodes and users: what a hostname becomes, and what an admin may choose.

use thiserror::Error;

/// Longest DNS label, in bytes.
///
/// Source: RFC 1035, section 2.3.4.
pub const LABEL_BYTES_MAX: usize = 63;

/// Longest name of a user, in bytes.
const USER_NAME_BYTES_MAX: usize = 255;

/// The name of a node whose hostname has nothing to make a label of.
const FALLBACK_LABEL: &str = "node";

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing there.
    #[error("the name is empty")]
    Empty,
    /// More bytes than allowed.
    #[error("the name is longer than {max} bytes")]
    TooLong {
        /// The limit.
        max: usize,
    },
    /// A character that may not be in a label.
    #[error("`{0}` is not allowed in a node's name: use a-z, 0-9 and `-`")]
    Label(char),
    /// `-` at either end.
    #[error("a node's name neither starts nor ends with `-`")]
    Edge,
    /// A character that may not be in a user's name.
    #[error(
        "`{0}` is not allowed in a user's name: use letters, digits, `.`, `_`, `-` and one `@`"
    )]
    User(char),
    /// A user's name that does not start with a letter.
    #[error("a user's name starts with a letter")]
    UserStart,
}

/// Checks a label that an admin chose for a node.
pub fn check_label(label: &str) -> Result<(), NameError> {
    if label.is_empty() {
        return Err(NameError::Empty);
    }
    if label.len() > LABEL_BYTES_MAX {
        return Err(NameError::TooLong { max: LABEL_BYTES_MAX });
    }
    if let Some(bad) = label.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(NameError::Label(bad));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(NameError::Edge);
    }
    Ok(())
}

/// Checks a user's name. It appears in policies, on the wire and in clients, so it stays plain.
pub fn check_user_name(name: &str) -> Result<(), NameError> {
    let Some(first) = name.chars().next() else {
        return Err(NameError::Empty);
    };
    if name.len() > USER_NAME_BYTES_MAX {
        return Err(NameError::TooLong { max: USER_NAME_BYTES_MAX });
    }
    if !first.is_alphabetic() {
        return Err(NameError::UserStart);
    }
    let mut at_signs = 0;
    for c in name.chars() {
        at_signs += usize::from(c == '@');
        if !(c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '@')) || at_signs > 1 {
            return Err(NameError::User(c));
        }
    }
    Ok(())
}

/// Makes a DNS label of a hostname: lower case, apostrophes dropped, runs of anything else but letters and
/// digits of ASCII become one `-`. A hostname with none of them becomes `node`.
///
/// Source: tailscale `dnsname.SanitizeHostname`, and the table in headscale's tests (`Joe's Mac mini` is
/// `joes-mac-mini`).
pub fn label_from_hostname(hostname: &str) -> String {
    let hostname = hostname.strip_suffix(".local").unwrap_or(hostname);
    let mut label = String::with_capacity(hostname.len().min(LABEL_BYTES_MAX));
    for c in hostname.chars() {
        match c {
            'a'..='z' | '0'..='9' => label.push(c),
            'A'..='Z' => label.push(c.to_ascii_lowercase()),
            '\'' | '\u{2019}' => {}
            _ if label.is_empty() || label.ends_with('-') => {}
            _ => label.push('-'),
        }
        if label.len() == LABEL_BYTES_MAX {
            break;
        }
    }
    let label = label.trim_end_matches('-');
    if label.is_empty() { FALLBACK_LABEL.to_owned() } else { label.to_owned() }
}

/// The `number`th variant of a label that is taken: `web-1`, `web-2`; cut so that it stays a label.
pub fn label_with_suffix(label: &str, number: u32) -> String {
    let suffix = format!("-{number}");
    let kept = label.len().min(LABEL_BYTES_MAX - suffix.len());
    format!("{}{suffix}", label[..kept].trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames_become_labels() {
        let table = [
            ("Joe's Mac mini", "joes-mac-mini"),
            ("Test@Host", "test-host"),
            ("mail.server", "mail-server"),
            ("My-PC!", "my-pc"),
            ("我的电脑", "node"),
            ("", "node"),
            ("--x--", "x"),
            ("mac.local", "mac"),
        ];
        for (hostname, label) in table {
            assert_eq!(label_from_hostname(hostname), label, "{hostname}");
        }
    }

    #[test]
    fn every_hostname_becomes_a_valid_label() {
        proptest::proptest!(|(hostname in ".{0,100}", number in 1..100_000_u32)| {
            let label = label_from_hostname(&hostname);
            proptest::prop_assert_eq!(check_label(&label), Ok(()));
            proptest::prop_assert_eq!(check_label(&label_with_suffix(&label, number)), Ok(()));
        });
    }

    #[test]
    fn chosen_names_are_checked() {
        assert_eq!(check_label("Web"), Err(NameError::Label('W')));
        assert_eq!(check_label("-web"), Err(NameError::Edge));
        assert_eq!(check_label(&"a".repeat(64)), Err(NameError::TooLong { max: 63 }));
        assert_eq!(check_user_name("alice@example.com"), Ok(()));
        assert_eq!(check_user_name("1alice"), Err(NameError::UserStart));
        assert_eq!(check_user_name("al\"ice"), Err(NameError::User('"')));
    }
}
