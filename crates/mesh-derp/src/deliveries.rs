//! What another relay of the mesh has passed on.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_keys::NodePublic;

use crate::routes::Routes;
use crate::table::{Route, Table};

/// Pairs of clients that are remembered before it is looked for some to forget.
const KEPT_MIN: usize = 64;

/// Where packets go that another relay passes on, and who has been sent them by whom.
#[derive(Debug)]
pub(crate) struct Deliveries {
    routes: Routes,
    noted: Noted,
}

impl Deliveries {
    pub(crate) fn new() -> Self {
        Self { routes: Routes::new(), noted: Noted { pairs: HashMap::new(), kept_max: KEPT_MIN } }
    }

    /// The way to a client of this relay, and whether the sender is in the mesh. Where `dst` is at another, a packet goes no
    /// further: one hop is enough.
    ///
    /// `dst` will hear when the sender is gone from the mesh. Not of one that we have not heard of, for it cannot be said
    /// to have left: its first packet may overtake the news of it, which comes by another connection, and the next will do.
    pub(crate) fn find(
        &mut self,
        table: &Table,
        src: &NodePublic,
        dst: &NodePublic,
    ) -> Option<(&Route, bool)> {
        let route = self.routes.find(table, dst).filter(|route| !route.leads_away())?;
        let is_present = self.noted.note(table, *src, *dst, route);
        Some((route, is_present))
    }
}

/// Sender and receiver of whom the table knows that the one has sent to the other.
#[derive(Debug)]
struct Noted {
    /// By the ways to both: once one of them is stale, the table may have forgotten the pair.
    pairs: HashMap<(NodePublic, NodePublic), [Arc<Route>; 2]>,
    /// How many of them there are to be until the stale ones are forgotten.
    kept_max: usize,
}

impl Noted {
    /// Sees to it that the table knows, and says whether `src` is in the mesh.
    fn note(&mut self, table: &Table, src: NodePublic, dst: NodePublic, to: &Arc<Route>) -> bool {
        let is_fresh = |ways: &[Arc<Route>; 2]| !ways.iter().any(|way| way.is_stale());
        if self.pairs.get(&(src, dst)).is_some_and(is_fresh) {
            return true;
        }
        let Some(from) = table.find(&src) else { return false };
        table.note_sent(&src, dst);
        if self.pairs.len() >= self.kept_max {
            self.pairs.retain(|_, ways| is_fresh(ways));
            self.kept_max = KEPT_MIN.max(2 * self.pairs.len());
        }
        self.pairs.insert((src, dst), [from, Arc::clone(to)]);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::peer_present::PeerPresent;

    fn numbered(number: u16) -> PeerPresent {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        let addr = (Ipv4Addr::LOCALHOST, number).into();
        PeerPresent { key: NodePublic::from_bytes(key), addr, flags: PeerPresent::REGULAR }
    }

    #[test]
    fn receivers_that_come_and_go_are_forgotten() {
        let (table, mut deliveries) = (Table::default(), Deliveries::new());
        let join = |number| table.join(numbered(number), || true).expect("admitted");
        let relay = join(0);
        let src = numbered(1).key;
        table.add_forwarder(src, &relay);
        for number in 2..2000 {
            let receiver = join(number);
            assert!(deliveries.find(&table, &src, &receiver.key()).is_some_and(|(_, there)| there));
            table.leave(&receiver, std::iter::empty());
        }
        assert!(deliveries.noted.pairs.len() <= 2 * KEPT_MIN, "{}", deliveries.noted.pairs.len());
        assert!(table.sent_to(&src) <= 200, "{}", table.sent_to(&src));
        let last = join(2000);
        deliveries.find(&table, &src, &last.key());
        table.remove_forwarder(&src, &relay);
        let mut told = Vec::new();
        last.drain(&mut told, usize::MAX);
        assert!(!told.is_empty(), "it hears that the sender is gone");
    }
}
