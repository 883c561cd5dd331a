//! The bindings that one connection had, and what each report says of them.
//!
//! The kernel has one entry for a connection at a time. So the beginning of another binding of the same connection says that the one
//! before has ended, even where nobody reported its end.

use super::SECOND;
use super::addresses::Short;
use crate::WallNs;
use crate::fact::{NatEvent, NatFact};

/// A binding covers this much time before it was reported: the first packet was seen before the connection was confirmed.
pub(super) const LEAD_NS: WallNs = 2 * SECOND;
/// And this much after its end: the last packets may be counted a moment later.
pub(super) const TRAIL_NS: WallNs = 2 * SECOND;

/// Times that are not known are the extremes, to save room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    /// `MIN`: not reported.
    pub(super) created_ns: WallNs,
    /// The first and the last dump that found it; `MIN`: none.
    first_found_ns: WallNs,
    found_ns: WallNs,
    /// `MAX`: goes on.
    pub(super) destroyed_ns: WallNs,
    /// From here on it is not certain that it was still there; `MAX`: its end was reported, or it goes on.
    doubtful_ns: WallNs,
    pub(super) public: Short,
    pub(super) public_port: u16,
    pub(super) is_v4: bool,
    /// It was there before anybody listened, and its end may not be reported (`nf_conntrack_events=2`).
    is_silent: bool,
}

/// The bindings one tuple had, almost always one.
#[derive(Clone, Debug)]
pub(super) enum Bindings {
    One(Binding),
    Many(Vec<Binding>),
}

impl Bindings {
    pub(super) fn as_slice(&self) -> &[Binding] {
        match self {
            Self::One(binding) => std::slice::from_ref(binding),
            Self::Many(bindings) => bindings,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Binding] {
        match self {
            Self::One(binding) => std::slice::from_mut(binding),
            Self::Many(bindings) => bindings,
        }
    }

    fn push(&mut self, binding: Binding) {
        match self {
            Self::Many(bindings) if bindings.is_empty() => *self = Self::One(binding),
            Self::Many(bindings) => bindings.push(binding),
            Self::One(first) => *self = Self::Many(vec![*first, binding]),
        }
    }

    /// Whether any is left.
    pub(super) fn keep(&mut self, matters: impl Fn(&Binding) -> bool) -> bool {
        match self {
            Self::One(binding) => matters(binding),
            Self::Many(bindings) => {
                bindings.retain(matters);
                !bindings.is_empty()
            }
        }
    }

    fn find(&mut self, reported: &Binding, is_it: impl Fn(&Binding) -> bool) -> Option<&mut Binding> {
        self.as_mut_slice().iter_mut().rev().find(|known| known.is_same_endpoint(reported) && is_it(known))
    }

    /// What a report says; again it has no effect.
    pub(super) fn apply(&mut self, event: NatEvent, reported: Binding, at_ns: WallNs) {
        match event {
            NatEvent::Created => self.created(reported, at_ns),
            NatEvent::Found => self.found(reported, at_ns),
            NatEvent::Destroyed => self.destroyed(reported, at_ns),
            NatEvent::Missed => self.missed(reported, at_ns),
        }
    }

    fn created(&mut self, reported: Binding, at_ns: WallNs) {
        self.end_others(&reported, at_ns);
        // A dump, or the end, was reported before the beginning.
        let begins_then = |known: &Binding| {
            let was_found_before = known.first_found_ns != WallNs::MIN && known.first_found_ns < at_ns;
            known.created_ns == WallNs::MIN && known.destroyed_ns >= at_ns && !was_found_before
        };
        if let Some(known) = self.find(&reported, begins_then) {
            known.created_ns = at_ns;
            return;
        }
        // The same beginning may be known by another clock: the event's, the connection's, or that of its reading.
        let is_known = |known: &Binding| {
            let is_twin =
                (known.created_ns.saturating_sub(at_ns)).saturating_abs() <= LEAD_NS && known.destroyed_ns >= at_ns;
            is_twin || (known.began_ns() <= at_ns && known.destroyed_ns > at_ns)
        };
        if self.find(&reported, is_known).is_none() {
            self.push(Binding { created_ns: at_ns, ..reported });
        }
    }

    fn found(&mut self, reported: Binding, at_ns: WallNs) {
        self.end_others(&reported, at_ns);
        let is_there = |known: &Binding| {
            let from_ns =
                if known.created_ns == WallNs::MIN { known.first_found_ns } else { known.created_ns - LEAD_NS };
            from_ns <= at_ns && known.destroyed_ns >= at_ns
        };
        match self.find(&reported, is_there) {
            Some(known) => {
                known.found_ns = known.found_ns.max(at_ns);
                if known.first_found_ns == WallNs::MIN {
                    known.first_found_ns = at_ns;
                }
                if known.doubtful_ns != WallNs::MAX {
                    known.doubtful_ns = known.doubtful_ns.max(at_ns);
                }
            }
            None => self.push(Binding { first_found_ns: at_ns, found_ns: at_ns, is_silent: true, ..reported }),
        }
    }

    fn destroyed(&mut self, reported: Binding, at_ns: WallNs) {
        if self.find(&reported, |known| known.destroyed_ns == at_ns && known.doubtful_ns == WallNs::MAX).is_some() {
            return;
        }
        // Its end may have been found out before its report was read.
        let is_open = |known: &Binding| {
            let was_found_out =
                known.doubtful_ns != WallNs::MAX && at_ns <= known.destroyed_ns.saturating_add(TRAIL_NS);
            (known.destroyed_ns == WallNs::MAX || was_found_out) && known.began_ns() <= at_ns
        };
        match self.find(&reported, is_open) {
            Some(known) => (known.destroyed_ns, known.doubtful_ns) = (at_ns, WallNs::MAX),
            None => self.push(Binding { destroyed_ns: at_ns, ..reported }),
        }
    }

    fn missed(&mut self, reported: Binding, at_ns: WallNs) {
        let goes_on = |known: &Binding| known.destroyed_ns == WallNs::MAX && known.began_ns() <= at_ns;
        if let Some(known) = self.find(&reported, goes_on) {
            (known.destroyed_ns, known.doubtful_ns) = (at_ns, known.began_ns());
        }
    }

    /// Another binding of this connection was there at `at_ns`: those before it ended at some moment since they were last known.
    fn end_others(&mut self, reported: &Binding, at_ns: WallNs) {
        for known in self.as_mut_slice() {
            if !known.is_same_endpoint(reported) && known.destroyed_ns == WallNs::MAX && known.began_ns() < at_ns {
                (known.destroyed_ns, known.doubtful_ns) = (at_ns, known.began_ns());
            }
        }
    }
}

impl Binding {
    /// Of which nothing is known but where it leads.
    pub(super) fn to(public: Short, public_port: u16, is_v4: bool) -> Self {
        Self {
            created_ns: WallNs::MIN,
            first_found_ns: WallNs::MIN,
            found_ns: WallNs::MIN,
            destroyed_ns: WallNs::MAX,
            doubtful_ns: WallNs::MAX,
            public,
            public_port,
            is_v4,
            is_silent: false,
        }
    }

    pub(super) fn is_same_endpoint(&self, other: &Self) -> bool {
        (self.public, self.public_port, self.is_v4) == (other.public, other.public_port, other.is_v4)
    }

    /// When it was last known to be there; `MIN`: only its end was reported.
    pub(super) fn began_ns(&self) -> WallNs {
        self.created_ns.max(self.found_ns)
    }

    /// A dump that was made from `at_ns` on did not find it: it ended at some moment since `doubtful_ns`.
    pub(super) fn end_unless_found(&mut self, at_ns: WallNs, doubtful_ns: WallNs) {
        let began_ns = self.began_ns();
        if self.destroyed_ns == WallNs::MAX && began_ns < at_ns {
            let since_ns = if self.is_silent { began_ns } else { doubtful_ns.max(began_ns) };
            (self.destroyed_ns, self.doubtful_ns) = (at_ns, since_ns);
        }
    }

    /// How much of an interval the binding covers, `None` for nothing. A single moment it covers counts as one.
    pub(super) fn overlap(&self, start_ns: WallNs, end_ns: WallNs) -> Option<WallNs> {
        let from = self.created_ns.saturating_sub(LEAD_NS).max(start_ns);
        let to = self.destroyed_ns.saturating_add(TRAIL_NS).min(end_ns);
        (from <= to).then(|| to - from + 1)
    }

    /// The same without what is allowed before it was reported and after its end.
    pub(super) fn overlap_as_reported(&self, start_ns: WallNs, end_ns: WallNs) -> Option<WallNs> {
        let (from, to) = (self.created_ns.max(start_ns), self.destroyed_ns.min(end_ns));
        (from <= to).then(|| to - from + 1)
    }

    /// Whether it was there for sure when a flow was seen that it overlaps: it may have begun at any time before it was found, and
    /// ended at any time since it was doubtful.
    pub(super) fn is_certain(&self, start_ns: WallNs, end_ns: WallNs) -> bool {
        let began = self.created_ns != WallNs::MIN
            || self.first_found_ns == WallNs::MIN
            || end_ns >= self.first_found_ns.saturating_sub(LEAD_NS);
        began && start_ns <= self.doubtful_ns.saturating_add(TRAIL_NS)
    }

    /// Facts that make one that answers alike.
    pub(super) fn facts(&self, fact: NatFact) -> impl Iterator<Item = NatFact> {
        let reported = |event, at_ns: WallNs| (![WallNs::MIN, WallNs::MAX].contains(&at_ns)).then_some((event, at_ns));
        let created = reported(NatEvent::Created, self.created_ns);
        let first_found = reported(NatEvent::Found, self.first_found_ns);
        let found = reported(NatEvent::Found, self.found_ns).filter(|_| self.found_ns != self.first_found_ns);
        let [first, second] = if self.is_silent { [first_found, created] } else { [created, first_found] };
        // Where its end is doubtful it was last known at that moment.
        let is_doubtful = self.doubtful_ns != WallNs::MAX;
        let known = reported(NatEvent::Found, self.doubtful_ns).filter(|_| self.doubtful_ns != self.began_ns());
        let end = reported(if is_doubtful { NatEvent::Missed } else { NatEvent::Destroyed }, self.destroyed_ns);
        [first, second, found, known, end].into_iter().flatten().map(move |(event, at_ns)| NatFact {
            event,
            at_ns,
            ..fact
        })
    }
}
