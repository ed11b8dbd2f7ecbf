//! What speaks for a joining connection, and who gives way where places run out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::gateway::input::SessionId;

/// What speaks for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// Nothing that a gateway knows of.
    None,
    /// It waits for a person, which may take days; whoever comes again finds its request.
    Person,
    /// A person has let its Device in, and its factory certificate or its proof names that Device: what is left needs nobody.
    Expected,
    /// So it is, and a certificate was issued for that Device before: it may come for that.
    Issued,
}

impl Claim {
    fn gives_way(self) -> bool {
        self < Self::Expected
    }
}

/// Those that may have to give way, each with its source.
#[derive(Debug, Default)]
pub(super) struct Yielding {
    by_source: BTreeMap<IpAddr, OfSource>,
    len: usize,
}

#[derive(Debug, Default)]
struct OfSource {
    /// In both, the oldest first.
    for_person: BTreeSet<SessionId>,
    unknown: BTreeSet<SessionId>,
}

impl OfSource {
    fn len(&self) -> usize {
        self.for_person.len() + self.unknown.len()
    }

    fn of(&mut self, claim: Claim) -> &mut BTreeSet<SessionId> {
        if claim == Claim::Person { &mut self.for_person } else { &mut self.unknown }
    }
}

impl Yielding {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// One that has this claim, unless that keeps it its place.
    pub(super) fn insert(&mut self, source: IpAddr, claim: Claim, id: SessionId) {
        if claim.gives_way() && self.by_source.entry(source).or_default().of(claim).insert(id) {
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, source: IpAddr, claim: Claim, id: SessionId) {
        let Some(of_source) = self.by_source.get_mut(&source) else { return };
        if claim.gives_way() && of_source.of(claim).remove(&id) {
            self.len -= 1;
        }
        if of_source.len() == 0 {
            self.by_source.remove(&source);
        }
    }

    /// Who makes room for one that comes, if anybody does: one of the source that has most. Of two for which nothing speaks, the
    /// newcomer stays away unless another source has more than its own; for one that is expected, either goes.
    pub(super) fn gives_way(&self, claim: Claim, source: IpAddr) -> Option<SessionId> {
        let most = self.by_source.values().max_by_key(|of_source| of_source.len())?;
        let own = self.by_source.get(&source);
        let has_most = own.is_some_and(|own| own.len() >= most.len());
        let (of_source, unknown_too) = match own {
            Some(own) if has_most && claim.gives_way() => (own, false),
            _ => (most, true),
        };
        let unknown = of_source.unknown.first().filter(|_| unknown_too);
        of_source.for_person.first().or(unknown).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    const C: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3));

    fn yielding(all: &[(IpAddr, Claim)]) -> Yielding {
        let mut yielding = Yielding::default();
        for (number, (source, claim)) in (1..).zip(all) {
            yielding.insert(*source, *claim, SessionId(number));
        }
        yielding
    }

    #[test]
    fn who_has_a_claim_never_gives_way() {
        let mut claims = yielding(&[(A, Claim::Expected), (A, Claim::Issued)]);
        assert_eq!((claims.len(), claims.gives_way(Claim::Issued, B)), (0, None));
        claims.insert(A, Claim::None, SessionId(9));
        assert_eq!(claims.gives_way(Claim::Expected, A), Some(SessionId(9)));
        claims.remove(A, Claim::None, SessionId(9));
        assert_eq!((claims.len(), claims.by_source.len()), (0, 0));
    }

    #[test]
    fn the_source_with_most_makes_room_and_who_waits_for_a_person_goes_first() {
        let claims =
            yielding(&[(A, Claim::None), (A, Claim::Person), (A, Claim::Person), (B, Claim::Person)]);
        for newcomer in [Claim::None, Claim::Expected] {
            assert_eq!(claims.gives_way(newcomer, B), Some(SessionId(2)));
            assert_eq!(claims.gives_way(newcomer, C), Some(SessionId(2)));
        }
        assert_eq!(claims.gives_way(Claim::None, A), Some(SessionId(2)), "its own");
    }

    #[test]
    fn nobody_makes_room_for_more_of_the_source_that_has_most() {
        let claims = yielding(&[(A, Claim::None), (A, Claim::None), (B, Claim::Person)]);
        assert_eq!(claims.gives_way(Claim::None, A), None);
        assert_eq!(claims.gives_way(Claim::None, B), Some(SessionId(1)));
        assert_eq!(claims.gives_way(Claim::Expected, A), Some(SessionId(1)));
    }
}
