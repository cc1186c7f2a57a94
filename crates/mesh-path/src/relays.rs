//! Which relay a peer is reached through.

use mesh_wire::DerpRegionId;

/// The relays that are known to hold a peer.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    /// The peer's home, by the netmap.
    home: Option<DerpRegionId>,
    /// Whether the home said that the peer is not there.
    is_home_empty: bool,
    /// Through which the peer was heard last.
    heard: Option<DerpRegionId>,
}

impl Relays {
    pub(crate) fn set_home(&mut self, home: Option<DerpRegionId>) {
        if self.home != home {
            self.home = home;
            self.is_home_empty = false;
        }
    }

    /// Notes that something came from the peer through a relay.
    pub(crate) fn note_heard(&mut self, region: DerpRegionId) {
        self.heard = Some(region);
        if self.home == Some(region) {
            self.is_home_empty = false;
        }
    }

    /// Notes that a relay does not hold the peer.
    pub(crate) fn note_gone(&mut self, region: DerpRegionId) {
        self.is_home_empty |= self.home == Some(region);
        self.heard = self.heard.filter(|heard| *heard != region);
    }

    /// The relay to send through: the home, or where the peer was heard if the home does not hold it.
    ///
    /// An empty home is better than nothing, for no relay tells that a peer came back. Go takes no notice of
    /// an empty home; but the netmap may be slower than a peer that changes its home.
    pub(crate) fn choose(&self) -> Option<DerpRegionId> {
        self.home.filter(|_| !self.is_home_empty).or(self.heard).or(self.home)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: DerpRegionId = DerpRegionId(1);
    const OTHER: DerpRegionId = DerpRegionId(2);

    fn check(home: Option<DerpRegionId>, events: &[(bool, DerpRegionId)], chosen: Option<u32>) {
        let mut relays = Relays::default();
        relays.set_home(home);
        for (is_heard, region) in events {
            if *is_heard { relays.note_heard(*region) } else { relays.note_gone(*region) }
        }
        relays.set_home(home);
        assert_eq!(relays.choose(), chosen.map(DerpRegionId), "{home:?} {events:?}");
    }

    #[test]
    fn home_is_the_relay_unless_it_is_empty_and_the_peer_was_heard_elsewhere() {
        let (heard, gone) = (true, false);
        check(None, &[], None);
        check(Some(HOME), &[], Some(1));
        check(None, &[(heard, OTHER)], Some(2));
        check(None, &[(heard, OTHER), (gone, OTHER)], None);
        check(Some(HOME), &[(heard, OTHER)], Some(1));
        check(Some(HOME), &[(gone, HOME)], Some(1));
        check(Some(HOME), &[(heard, OTHER), (gone, HOME)], Some(2));
        check(Some(HOME), &[(gone, HOME), (heard, OTHER)], Some(2));
        check(Some(HOME), &[(gone, HOME), (heard, OTHER), (gone, OTHER)], Some(1));
        check(Some(HOME), &[(gone, HOME), (heard, HOME), (heard, OTHER)], Some(1));
    }

    #[test]
    fn other_home_starts_afresh() {
        let mut relays = Relays::default();
        relays.set_home(Some(HOME));
        relays.note_gone(HOME);
        relays.note_heard(OTHER);
        relays.set_home(Some(DerpRegionId(3)));
        assert_eq!(relays.choose(), Some(DerpRegionId(3)));
    }
}
