//! `tests` and `sshTests`: what a policy says about itself. They are kept as they are written, for they are run against a
//! tailnet; only the shape of `sshTests` is judged here.

use std::sync::Arc;

use super::selectors::parse_prefix;
use super::{Decoder, SHORT_BYTES_MAX};
use crate::hujson::Read;
use crate::policy::{SshTest, Test};
use crate::problem::{Refusal, nearest, quoted};

const TEST: &[&str] = &["src", "proto", "accept", "deny"];
const SSH_TEST: &[&str] = &["src", "dst", "accept", "deny", "check"];

impl Decoder<'_> {
    pub(super) fn tests(&mut self) -> Read<()> {
        self.policy.tests = self.rules(|decoder, line| {
            let src = Arc::default();
            let proto = Arc::default();
            let mut test = Test { line, src, proto, accept: Vec::new(), deny: Vec::new() };
            decoder.fields(TEST, |decoder, name| {
                match name {
                    "src" => test.src = decoder.plain_text()?,
                    "proto" => test.proto = decoder.plain_text()?,
                    "accept" => test.accept = decoder.plain_texts()?,
                    _ => test.deny = decoder.plain_texts()?,
                }
                Ok(())
            })?;
            Ok(test)
        })?;
        Ok(())
    }

    pub(super) fn ssh_tests(&mut self) -> Read<()> {
        self.policy.ssh_tests = self.rules(|decoder, line| {
            let mut test = SshTest {
                line,
                src: Arc::default(),
                dst: Vec::new(),
                accept: Vec::new(),
                deny: Vec::new(),
                check: Vec::new(),
            };
            decoder.fields(SSH_TEST, |decoder, name| {
                match name {
                    "src" => test.src = decoder.plain_text()?,
                    "dst" => test.dst = decoder.ssh_test_destinations()?,
                    "accept" => test.accept = decoder.plain_texts()?,
                    "deny" => test.deny = decoder.plain_texts()?,
                    _ => test.check = decoder.plain_texts()?,
                }
                Ok(())
            })?;
            Ok(test)
        })?;
        Ok(())
    }

    fn plain_text(&mut self) -> Read<Arc<str>> {
        Ok(self.text()?.map_or_else(Arc::default, Arc::from))
    }

    fn ssh_test_destinations(&mut self) -> Read<Vec<Arc<str>>> {
        self.texts(|decoder, text| {
            let destination = text.trim();
            let is_network = destination.contains('/') && parse_prefix(destination).is_some();
            let is_unknown = destination.starts_with("tag:")
                && !decoder.policy.tag_owners.contains_key(destination);
            if is_network || destination == "autogroup:internet" {
                let element = quoted(destination);
                decoder.refuse(format!("SSH tests dst contains disallowed element {element}"));
            } else if is_unknown {
                let tags = decoder.policy.tag_owners.keys().map(AsRef::as_ref);
                let suggestion = nearest(destination, tags);
                let message = format!("SSH tests dst contains unknown tag {}", quoted(destination));
                decoder.refuse(Refusal { message: message.into(), suggestion });
            }
            Some(decoder.kept(&text, SHORT_BYTES_MAX))
        })
    }
}
