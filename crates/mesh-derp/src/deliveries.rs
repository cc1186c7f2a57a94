//! What another relay of the mesh has passed on.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_keys::NodePublic;

use crate::packet::{PacketKind, Tally};
use crate::routes::Routes;
use crate::table::{Route, Table};

/// Pairs of clients that are remembered before it is looked for some to forget.
const KEPT_MIN: usize = 64;

/// Where packets go that another relay passes on, and who has been sent them by whom.
#[derive(Debug)]
pub(crate) struct Deliveries {
    routes: Routes,
    /// Sender and receiver that the table knows of, by the way to the sender: once that is stale, the table may have
    /// forgotten them.
    noted: HashMap<(NodePublic, NodePublic), Arc<Route>>,
    /// How many of them there are to be until the stale ones are forgotten.
    kept_max: usize,
}

impl Deliveries {
    pub(crate) fn new() -> Self {
        Self { routes: Routes::new(), noted: HashMap::new(), kept_max: KEPT_MIN }
    }

    /// Whether there is a way to a client of this relay. Where it is at another, a packet goes no further: one hop is
    /// enough.
    pub(crate) fn reaches(&mut self, table: &Table, dst: &NodePublic) -> bool {
        self.routes.find(table, dst).is_some_and(|route| !route.leads_away())
    }

    /// Queues a packet, as [`Route::push`].
    pub(crate) fn push(
        &mut self,
        table: &Table,
        kind: PacketKind,
        src: NodePublic,
        dst: NodePublic,
        payload: &[u8],
    ) -> Option<Tally> {
        let is_present = self.note(table, src, dst);
        self.routes.find(table, &dst)?.push(kind, src, dst, payload, is_present)
    }

    /// Sees to it that `dst` hears when `src` is gone from the mesh, and says whether it is there.
    ///
    /// Not of one that we have not heard of, for it cannot be said to have left: its first packet may overtake the news
    /// of it, which comes by another connection, and the next will do.
    fn note(&mut self, table: &Table, src: NodePublic, dst: NodePublic) -> bool {
        if self.noted.get(&(src, dst)).is_some_and(|route| !route.is_stale()) {
            return true;
        }
        let Some(route) = table.find(&src) else { return false };
        table.note_sent(&src, dst);
        if self.noted.len() >= self.kept_max {
            self.noted.retain(|_, route| !route.is_stale());
            self.kept_max = KEPT_MIN.max(2 * self.noted.len());
        }
        self.noted.insert((src, dst), route);
        true
    }
}
