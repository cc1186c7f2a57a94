//! The phases: what happens in each, and what it is to lead to.

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::{sleep, sleep_until};

use crate::cli;
use crate::node::Node;
use crate::reader::{Change, Watched};
use crate::report::{Phase, Spread};
use crate::roster::Expected;
use crate::run::{Begun, Run, Went};

/// Changes that are timed before and while nodes stop reading.
const STALL_CHANGES: usize = 20;

/// The pause between two of them.
const STALL_PAUSE: Duration = Duration::from_millis(100);

/// The pause after nodes have opened the streams that they leave unread, so that what is timed is not their coming.
const STALL_SETTLE: Duration = Duration::from_secs(1);

/// How long a node that goes stays away in churn.
const AWAY: Duration = Duration::from_secs(1);

impl Run {
    /// Carries out one phase. Some have several rows to tell.
    pub(crate) async fn phase(&mut self, phase: &cli::Phase) -> Result<Vec<Phase>> {
        match phase {
            cli::Phase::Join => Ok(vec![self.join("join", self.first).await]),
            cli::Phase::JoinOne => Ok(vec![self.join("join-one", 1).await]),
            cli::Phase::Flap => self.flap().await,
            cli::Phase::Endpoints => {
                let begun = self.begin("endpoints");
                let went = self.change_endpoint(&begun).await?;
                Ok(vec![self.end(begun, went).await])
            }
            cli::Phase::Reconnect => Ok(vec![self.reconnect().await]),
            cli::Phase::RestartServer => Ok(vec![self.restart_server().await?]),
            cli::Phase::PolicyEdit => Ok(vec![self.policy_edit().await?]),
            cli::Phase::Churn { rate, time } => Ok(vec![self.churn(*rate, *time).await]),
            cli::Phase::Stall(count) => Box::pin(self.stall(*count)).await,
            cli::Phase::Hold(time) => Ok(vec![self.hold(*time).await]),
        }
    }

    async fn join(&mut self, name: &str, count: usize) -> Phase {
        let begun = self.begin(name);
        let before = self.fleet.joined;
        self.fleet.join(count);
        let went = self.until_right(&begun).await;
        let mut phase = self.end(begun, went).await;
        let joined = &self.fleet.members()[before..];
        phase.registration =
            Spread::of(joined.iter().filter_map(|node| node.view().registered_in).collect());
        phase
    }

    async fn flap(&mut self) -> Result<Vec<Phase>> {
        let begun = self.begin("flap off");
        let node = self.pick_seen()?;
        let went = self.change(&begun, &node, Change::Online(false), |order| order.online = false);
        let went = went.await?;
        let off = self.end(begun, went).await;

        node.expect_new_stream();
        let begun = self.begin("flap on");
        let went = self.change(&begun, &node, Change::Online(true), |order| order.online = true);
        let went = went.await?;
        self.until_right(&begun).await;
        Ok(vec![off, self.end(begun, went).await])
    }

    async fn reconnect(&mut self) -> Phase {
        let begun = self.begin("reconnect");
        for node in self.fleet.judged() {
            node.cut();
        }
        let went = self.until_right(&begun).await;
        self.end(begun, went).await
    }

    async fn restart_server(&mut self) -> Result<Phase> {
        let command = self.restart_command.clone().context("--restart-cmd is missing")?;
        let begun = self.begin("restart-server");
        self.fleet.expect_new_streams();
        shell(command, 0).await?;
        let command_ms = begun.elapsed_ms();
        let went = self.until_right(&begun).await;
        let mut phase = self.end(begun, went).await;
        phase.facts.insert("command_ms", command_ms);
        Ok(phase)
    }

    async fn policy_edit(&mut self) -> Result<Phase> {
        let command = self.policy_command.clone().context("--policy-cmd is missing")?;
        if let Some(path) = self.policy_expected.pop_front() {
            self.fleet.expect(Expected::read(&path, &self.roster)?);
        }
        self.edits += 1;
        let begun = self.begin("policy-edit");
        shell(command, self.edits).await?;
        let command_ms = begun.elapsed_ms();
        let went = self.until_right(&begun).await;
        let mut phase = self.end(begun, went).await;
        phase.facts.insert("command_ms", command_ms);
        // Below zero if nodes hear of it before the command does.
        if let Some(first) = phase.facts.get("first_message_ms") {
            let after = first - command_ms;
            phase.facts.insert("first_message_after_command_ms", after);
        }
        Ok(phase)
    }

    /// At a steady rate somebody has another endpoint (half of the time), goes for a second, or is cut.
    async fn churn(&mut self, rate: f64, time: Duration) -> Phase {
        let begun = self.begin("churn");
        let nodes: Vec<Arc<Node>> = self.fleet.judged().cloned().collect();
        let mut away: VecDeque<(Instant, Arc<Node>)> = VecDeque::new();
        let mut changes = 0_u32;
        while begun.at.elapsed() < time && !nodes.is_empty() {
            let due = begun.at + Duration::from_secs_f64(f64::from(changes) / rate);
            sleep_until(due.into()).await;
            while let Some((_, back)) = away.pop_front_if(|(at, _)| at.elapsed() > AWAY) {
                back.come();
            }
            let node = &nodes[self.picker.below(nodes.len())];
            match self.picker.below(4) {
                0 if node.order.borrow().online => {
                    node.order.send_modify(|order| order.online = false);
                    away.push_back((Instant::now(), Arc::clone(node)));
                }
                1 => node.cut(),
                _ => {
                    node.order.send_modify(|order| order.endpoint = order.endpoint.wrapping_add(1));
                }
            }
            changes += 1;
        }
        for (_, back) in away {
            back.come();
        }
        let calm = self.begin("churn");
        let went = self.until_right(&calm).await;
        // Everything since the beginning counts, but convergence only since the last change.
        let mut phase = self.end(begun, went).await;
        phase.facts.insert("changes_count", changes.into());
        phase
    }

    /// Times changes while all read, then while `count` nodes do not, and lets those come back.
    async fn stall(&mut self, count: usize) -> Result<Vec<Phase>> {
        let begun = self.begin("stall 0");
        let went = self.change_endpoints(&begun).await?;
        let before = self.end(begun, went).await;

        let nodes: Vec<Arc<Node>> = self.fleet.judged().cloned().collect();
        ensure!(count < nodes.len(), "stall={count}: somebody must go on reading");
        let begun = self.begin(format!("stall {count}"));
        let stalled = &nodes[nodes.len() - count..];
        let streams: Vec<u64> = stalled.iter().map(|node| node.view().sessions).collect();
        for node in stalled {
            node.order.send_modify(|order| order.stalled = true);
        }
        self.until(&begun, count, |_| {
            let opened = stalled.iter().zip(&streams);
            opened.filter(|(node, before)| node.view().sessions > **before).count()
        })
        .await;
        sleep(STALL_SETTLE).await;
        let went = self.change_endpoints(&begun).await?;
        let during = self.end(begun, went).await;

        let begun = self.begin("stall over");
        for node in stalled {
            node.expect_new_stream();
            node.order.send_modify(|order| order.stalled = false);
        }
        let went = self.until_right(&begun).await;
        Ok(vec![before, during, self.end(begun, went).await])
    }

    async fn hold(&mut self, time: Duration) -> Phase {
        let begun = self.begin("hold");
        sleep(time).await;
        let went = self.until_right(&begun).await;
        self.end(begun, went).await
    }

    /// Changes endpoints, one after the other.
    async fn change_endpoints(&mut self, begun: &Begun) -> Result<Went> {
        let mut all = Went::default();
        for _ in 0..STALL_CHANGES {
            let went = self.change_endpoint(begun).await?;
            all.times.extend(went.times);
            all.unseen += went.unseen;
            sleep(STALL_PAUSE).await;
        }
        Ok(all)
    }

    async fn change_endpoint(&mut self, begun: &Begun) -> Result<Went> {
        let node = self.pick_seen()?;
        let endpoint = node.order.borrow().endpoint.wrapping_add(1);
        let change = Change::Endpoint(node.endpoint(endpoint));
        self.change(begun, &node, change, |order| order.endpoint = endpoint).await
    }

    /// Orders a change, and waits until everybody who should has seen it.
    async fn change(
        &mut self,
        begun: &Begun,
        node: &Node,
        change: Change,
        order: impl FnOnce(&mut crate::node::Order),
    ) -> Result<Went> {
        let slot = node.view().own.context("a node without a map")?;
        let expectation = self.fleet.expectation().context("not everybody has had a map")?;
        let viewers: Vec<Arc<Node>> = expectation
            .viewers(slot)
            .map(|viewer| Arc::clone(&self.fleet.nodes[viewer]))
            .filter(|viewer| viewer.order.borrow().is_judged())
            .collect();
        self.waits += 1;
        let number = self.waits;
        let id = self.fleet.shared.reader.id(slot);
        self.fleet.shared.reader.watch(Some(Watched { number, id, change }));
        let at = Instant::now();
        node.order.send_modify(order);
        let saw = |viewer: &Arc<Node>| {
            let seen = viewer.view().seen;
            seen.filter(|(wait, _)| *wait == number).map(|(_, seen_at)| seen_at - at)
        };
        self.until(begun, viewers.len(), |_| viewers.iter().filter_map(saw).count()).await;
        self.fleet.shared.reader.watch(None);
        let times: Vec<Duration> = viewers.iter().filter_map(saw).collect();
        Ok(Went { unseen: viewers.len() - times.len(), times })
    }

    /// Picks a node that is online and that others should see.
    fn pick_seen(&mut self) -> Result<Arc<Node>> {
        let expectation = self.fleet.expectation();
        let expectation = expectation.context("not everybody has had a map: join comes first")?;
        let is_seen = |node: &&Arc<Node>| {
            let slot = node.view().own;
            slot.is_some_and(|slot| expectation.viewers(slot).next().is_some())
        };
        let nodes: Vec<&Arc<Node>> = self.fleet.judged().collect();
        if nodes.is_empty() {
            bail!("nobody is there: join comes first");
        }
        // Some may be seen by nobody; then the next one will do.
        let start = self.picker.below(nodes.len());
        let found = nodes[start..].iter().chain(&nodes[..start]).copied().find(is_seen);
        found.cloned().context("nobody is seen by anybody")
    }
}

/// Runs a command in a shell, with its number as `$EDIT`. What it prints goes nowhere: standard output is the report's.
async fn shell(command: String, number: usize) -> Result<()> {
    let run = move || {
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).env("EDIT", number.to_string());
        let status = shell.stdin(Stdio::null()).stdout(Stdio::null()).status();
        let status = status.with_context(|| format!("cannot run {command:?}"))?;
        ensure!(status.success(), "{command:?} failed: {status}");
        Ok(())
    };
    tokio::task::spawn_blocking(run).await?
}
