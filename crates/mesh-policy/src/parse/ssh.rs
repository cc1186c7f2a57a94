//! `ssh`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::duration::{GoDuration, parse_duration};
use super::selectors::{Place, is_domain, trimmed};
use super::{Decoder, SHORT_BYTES_MAX, Step};
use crate::hujson::{Kind, Read};
use crate::policy::{Selector, SelectorId, SshAction, SshRule, SshUser};
use crate::problem::quoted;

const FIELDS: &[&str] =
    &["action", "src", "dst", "users", "checkPeriod", "acceptEnv", "recorder", "enforceRecorder"];

/// How long a check lasts unless the rule says otherwise.
const CHECK_PERIOD: Duration = Duration::from_hours(12);

/// How long a check may last.
const CHECK_PERIOD_MAX: Duration = Duration::from_hours(168);

/// What the members of a rule say, until they are judged together.
#[derive(Default)]
struct Written {
    action: Option<Action>,
    has_users: bool,
    check_period: Option<(usize, Duration)>,
    /// Where each destination stands.
    dst_offsets: Vec<usize>,
}

/// `action`, before the period is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Accept,
    Check,
    /// Refused already.
    Wrong,
}

impl<'a> Decoder<'a> {
    pub(super) fn ssh(&mut self) -> Read<()> {
        self.policy.ssh = self.rules(Self::ssh_rule)?;
        Ok(())
    }

    fn ssh_rule(&mut self, line: u32) -> Read<SshRule> {
        let start = self.reader.token();
        let is_object = self.reader.kind()? == Kind::Object;
        let mut written = Written::default();
        let mut rule = SshRule {
            line,
            action: SshAction::Accept,
            src: Vec::new(),
            dst: Vec::new(),
            users: Vec::new(),
            accept_env: Vec::new(),
            recorder: Vec::new(),
            enforce_recorder: false,
        };
        self.fields(FIELDS, |decoder, name| {
            match name {
                "action" => written.action = decoder.ssh_action()?,
                "src" => rule.src = decoder.selectors(Place::SshSource)?,
                "dst" => rule.dst = decoder.ssh_destinations(&mut written.dst_offsets)?,
                "users" => {
                    rule.users = decoder.ssh_users(&mut written.has_users)?;
                }
                "checkPeriod" => written.check_period = decoder.check_period()?,
                "acceptEnv" => rule.accept_env = decoder.accept_env()?,
                "recorder" => rule.recorder = decoder.recorders()?,
                _ => rule.enforce_recorder = decoder.flag()?,
            }
            Ok(())
        })?;
        if is_object {
            rule.action = self.judge_ssh(start, &written);
            self.check_ssh_ends(&rule, &written.dst_offsets);
        }
        Ok(rule)
    }

    fn ssh_action(&mut self) -> Read<Option<Action>> {
        let Some(text) = self.text()? else { return Ok(Some(Action::Wrong)) };
        Ok(match text.trim() {
            "" => None,
            "accept" => Some(Action::Accept),
            "check" => Some(Action::Check),
            other => {
                let message = format!("{} is not a valid action", quoted(other));
                self.refuse(message);
                Some(Action::Wrong)
            }
        })
    }

    fn ssh_destinations(&mut self, offsets: &mut Vec<usize>) -> Read<Vec<SelectorId>> {
        self.texts(|decoder, text| {
            let id = decoder.selector(Place::SshDestination, text)?;
            offsets.push(decoder.reader.token());
            Some(id)
        })
    }

    fn ssh_users(&mut self, has_users: &mut bool) -> Read<Vec<SshUser>> {
        self.texts(|decoder, text| {
            *has_users = true;
            let user = trimmed(text);
            decoder.ssh_user(&user).map_err(|message| decoder.refuse(message)).ok()
        })
    }

    fn ssh_user(&mut self, text: &str) -> Result<SshUser, String> {
        let domain = text.strip_prefix("localpart:*@").filter(|domain| is_domain(domain));
        if let Some(domain) = domain {
            return match self.foreign_domain(domain) {
                Some(message) => Err(message),
                None => Ok(SshUser::LocalPart(domain.into())),
            };
        }
        match text {
            "" | "*" => Err(format!("user {} is not valid", quoted(text))),
            "root" => Ok(SshUser::Root),
            "autogroup:nonroot" => Ok(SshUser::NonRoot),
            _ => Ok(SshUser::Name(self.kept(text, SHORT_BYTES_MAX))),
        }
    }

    /// `checkPeriod`, with where it stands.
    fn check_period(&mut self) -> Read<Option<(usize, Duration)>> {
        let Some(text) = self.text()? else { return Ok(None) };
        let offset = self.reader.token();
        match parse_check_period(&text) {
            Ok(period) => Ok(Some((offset, period))),
            Err(message) => {
                self.refuse(message);
                Ok(None)
            }
        }
    }

    fn accept_env(&mut self) -> Read<Vec<Arc<str>>> {
        self.texts(|decoder, name| {
            if name.is_empty() {
                decoder.refuse("acceptEnv values cannot be empty");
            }
            Some(decoder.kept(&name, SHORT_BYTES_MAX))
        })
    }

    /// `recorder`: one selector or a list of them.
    fn recorders(&mut self) -> Read<Vec<SelectorId>> {
        if self.reader.kind()? != Kind::Text {
            return self.selectors(Place::Recorder);
        }
        let text: Option<Cow<'a, str>> = self.text()?;
        Ok(text.and_then(|text| self.selector(Place::Recorder, text)).into_iter().collect())
    }

    fn judge_ssh(&mut self, start: usize, written: &Written) -> SshAction {
        if !written.has_users {
            self.refuse_at(start, "users must be specified");
        }
        match written.action {
            None => self.refuse_at(start, "action must be specified"),
            Some(Action::Check) => {
                let period = written.check_period.map_or(CHECK_PERIOD, |(_, period)| period);
                return SshAction::Check { period };
            }
            Some(Action::Accept) => {
                if let Some((offset, _)) = written.check_period {
                    self.within(Step::Field("checkPeriod"), |decoder| {
                        decoder
                            .refuse_at(offset, "checkPeriod is only valid with action \"check\"");
                    });
                }
            }
            Some(Action::Wrong) => {}
        }
        SshAction::Accept
    }

    /// Refuses destinations that do not go with the sources: a user's device is for that user alone.
    fn check_ssh_ends(&mut self, rule: &SshRule, offsets: &[usize]) {
        if rule.src.is_empty() {
            return;
        }
        let is_tagged = rule
            .src
            .iter()
            .any(|id| matches!(self.names.selector(*id), Selector::Tag(_) | Selector::Tagged));
        let first = rule.src[0];
        let only = rule.src.iter().all(|id| *id == first).then_some(first);
        for (index, (id, offset)) in rule.dst.iter().zip(offsets).enumerate() {
            if let Some(message) = self.ssh_mismatch(is_tagged, only, *id) {
                self.path.extend([Step::Field("dst"), Step::Index(index)]);
                self.refuse_at(*offset, message);
                self.path.truncate(self.path.len() - 2);
            }
        }
    }

    /// Why a destination does not go with sources of which one `is_tagged`, and which are all the `only` one if they
    /// are alike.
    fn ssh_mismatch(
        &self,
        is_tagged: bool,
        only: Option<SelectorId>,
        dst: SelectorId,
    ) -> Option<String> {
        match self.names.selector(dst) {
            Selector::User(user) if is_tagged => Some(format!(
                "tags in SSH source cannot access user-owned devices ({user}); use autogroup:tagged or specific tags \
                 as destinations instead"
            )),
            Selector::User(user) => (only != Some(dst)).then(|| {
                format!(
                    "user destination requires source to contain only that same user {}; use autogroup:self instead \
                     for same-user SSH access",
                    quoted(user)
                )
            }),
            Selector::SelfNodes if is_tagged => Some(
                "autogroup:self destination requires source to contain only users or groups, not tags or \
                 autogroup:tagged"
                    .to_owned(),
            ),
            Selector::Member if is_tagged => Some(
                "tags in SSH source cannot access autogroup:member (user-owned devices)".to_owned(),
            ),
            Selector::Any
            | Selector::UserDomain(_)
            | Selector::Group(_)
            | Selector::Tag(_)
            | Selector::Host(_)
            | Selector::IpSet(_)
            | Selector::Prefix(_)
            | Selector::Member
            | Selector::Tagged
            | Selector::SelfNodes
            | Selector::Internet
            | Selector::DangerAll
            | Selector::Admin
            | Selector::Owner => None,
        }
    }
}

/// Reads a period: a Go duration up to a week, or `always` for none.
fn parse_check_period(text: &str) -> Result<Duration, String> {
    if text == "always" {
        return Ok(Duration::ZERO);
    }
    let written = parse_duration(text)?;
    let GoDuration(nanoseconds) = written;
    let Ok(nanoseconds) = u64::try_from(nanoseconds) else {
        return Err(format!("checkPeriod {written} must be a positive duration"));
    };
    let period = Duration::from_nanos(nanoseconds);
    if period > CHECK_PERIOD_MAX {
        return Err(format!("checkPeriod {written} is above the max (168h)"));
    }
    Ok(period)
}
