//! Where the packets of one connection go.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_keys::NodePublic;

use crate::table::{Route, Table};

/// Destinations that are found by looking through all of them, which is quicker than any table while they are few.
const RECENT_MAX: usize = 16;

/// Destinations that a connection remembers before it looks for some to forget.
const KEPT_MIN: usize = 64;

/// Whom a connection has sent packets to: found without the table the next time, and told when the peer is gone.
#[derive(Debug)]
pub(crate) struct Routes {
    /// Some of `all`: the last that were looked for.
    recent: Vec<(NodePublic, Arc<Route>)>,
    /// Which of `recent` gives its place to the next.
    next: usize,
    all: HashMap<NodePublic, Arc<Route>>,
    /// How many of them there are to be until those are forgotten that lead nowhere.
    kept_max: usize,
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self { recent: Vec::new(), next: 0, all: HashMap::new(), kept_max: KEPT_MIN }
    }

    /// The way to `dst`, if there is one.
    pub(crate) fn find(&mut self, table: &Table, dst: &NodePublic) -> Option<&Arc<Route>> {
        let place = self.recent.iter().position(|(key, _)| key == dst);
        let place = match place {
            Some(place) if !self.recent[place].1.is_stale() => place,
            _ => self.look_up(table, dst, place)?,
        };
        Some(&self.recent[place].1)
    }

    /// All whom packets were sent to, but for some that have left.
    pub(crate) fn keys(&self) -> impl Iterator<Item = NodePublic> {
        self.all.keys().copied()
    }

    /// Puts the way to `dst` among the recent ones, at `place` if it had one, and says where.
    fn look_up(&mut self, table: &Table, dst: &NodePublic, place: Option<usize>) -> Option<usize> {
        let known = self.all.get(dst).filter(|route| !route.is_stale()).cloned();
        let route = match known {
            Some(route) => route,
            None => self.learn(table, dst)?,
        };
        if place.is_none() && self.recent.len() < RECENT_MAX {
            self.recent.push((*dst, route));
            return Some(self.recent.len() - 1);
        }
        let place = place.unwrap_or_else(|| {
            self.next = (self.next + 1) % RECENT_MAX;
            self.next
        });
        self.recent[place] = (*dst, route);
        Some(place)
    }

    fn learn(&mut self, table: &Table, dst: &NodePublic) -> Option<Arc<Route>> {
        let route = table.find(dst)?;
        if self.all.len() >= self.kept_max {
            // Who is connected by another way now must hear of our end all the same.
            self.all.retain(|key, route| !route.is_over() || table.is_connected(key));
            self.kept_max = KEPT_MIN.max(2 * self.all.len());
        }
        self.all.insert(*dst, Arc::clone(&route));
        Some(route)
    }
}
