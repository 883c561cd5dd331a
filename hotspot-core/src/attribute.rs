//! Attribution: which session a flow belongs to, and how sure that is.
//!
//! The moment that counts is the first packet of the row. Rules, first match wins:
//!
//! 1. Sessions that name the device and cover the moment. One user: `authenticated` where a session names the address too, or the
//!    device showed that it is its own; else `mac_only`. Where one of them names the address, those that name other addresses of its
//!    family are somebody else's: behind a repeater several people have one device address. A session that was silent since another
//!    took its device claims the addresses it named, and no others.
//! 2. Sessions that name the address, and no device at all: `ip_only`.
//! 3. No session covers the moment, but one that names the device began while the flow lasted or within
//!    [`LOGIN_WINDOW_NS`] after its first packet: `before_login`, by the first that did.
//! 4. Otherwise `unknown`. A session of another device that names the address is not enough: it would name the wrong person.
//!
//! A device that showed several IPv4 addresses at a time is a router or a repeater. Sessions that name other addresses say nothing of
//! one that nobody named: such flows are `ambiguous`, also where there is one such session, or `before_login` of a session that names
//! just this pair.
//!
//! Whoever else claims the flow makes it `ambiguous`, and all are listed: another user's session of this device; one that names the
//! address and no device; where no session of this device names the address, and no server gave it the address, one of another device
//! that does; and one of the first two kinds that began while the flow lasted. Several sessions of one user (roaming, a
//! re-authentication) are no contradiction: the one that began last counts.
//!
//! Where another device showed that the address is *its* own, by evidence that is worth as much, rules 1 and 2 say `conflict`, and the
//! users of both are listed: an address was forged, or given twice. A lease, and a session of this device that names the address, are
//! worth more than what a device says. Two devices of one user are no contradiction.
//!
//! Sessions that name a person count before those that name only a device (no user, or a device's address for one, as access points
//! report them that know devices by address): by all rules the first are asked, and only then the second.

mod evidence;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use self::evidence::{Evidence, Worth};
use crate::device::{DeviceTable, LEARNT_LATE_NS};
use crate::person::{Person, Rank};
use crate::record::{Attribution, Identity};
use crate::sessions::{Claims, Session, Span};
use crate::{MacAddr, WallNs};

/// How long after a flow's first packet a login still says who it was.
pub const LOGIN_WINDOW_NS: WallNs = 600 * 1_000_000_000;
/// Claimants that are listed; a device that thousands claim is nobody's.
pub const CLAIMANTS_MAX: usize = 64;

/// What makes a session a claimant, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ground {
    /// It names the device and covers the moment.
    Device,
    /// It names the address, and no device.
    Address,
    /// It is one of these, but began later, while the flow lasted.
    Later,
    /// It names another device, and the address; or that device showed that the address is its own.
    Elsewhere,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    ground: Ground,
    span: Span,
}

/// A flow as attribution sees it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub mac: MacAddr,
    pub ip: IpAddr,
    /// Outer and inner tag, 0 for none: the same address in two VLANs is two addresses.
    pub vlan: u16,
    pub inner_vlan: u16,
    pub start_ns: WallNs,
    pub end_ns: WallNs,
}

impl Seen {
    /// The last moment that can matter for it.
    fn reaches_to(&self, reach_ns: WallNs) -> WallNs {
        self.end_ns.max(self.start_ns.saturating_add(reach_ns))
    }
}

/// What the claimants make of a flow, if they are one user.
#[derive(Clone, Copy, Debug)]
struct Sure {
    attribution: Attribution,
    contested: Contested,
}

/// Whether other devices showed as well that the address is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contested {
    No,
    /// By devices whose users are among the claimants.
    ByUsers,
    /// By one of which nobody knows whose it is.
    ByDevice,
}

/// A session and which of its attachments.
type Place = (u32, u32);

/// Joins flows with sessions. Identities are shared between the flows of a device that have them; the usual flow costs no allocation.
pub struct Attributor<'a> {
    claims: Claims<'a>,
    evidence: Evidence<'a>,
    /// Of the flow under way.
    claimants: Vec<Claim>,
    places: Vec<Place>,
    client: Client,
}

/// A device and its address, whose flows come one after the other; and what is looked up once for all of them.
#[derive(Default)]
struct Client {
    is: Option<(MacAddr, IpAddr, u16, u16)>,
    /// Sessions that name the device.
    of_device: Range<usize>,
    /// Identities that were made for it, by claimants.
    identities: Vec<(Vec<Place>, Arc<Identity>)>,
    last: Option<Answer>,
}

/// What is true of every flow of a client that lies between two moments, because nothing happened in between.
struct Answer {
    after_ns: WallNs,
    before_ns: WallNs,
    /// How long after a flow began something could still have made a difference.
    reach_ns: WallNs,
    attribution: Attribution,
    identity: Option<Arc<Identity>>,
}

impl Answer {
    fn counts_for(&self, seen: &Seen) -> bool {
        self.after_ns < seen.start_ns && seen.reaches_to(self.reach_ns) < self.before_ns
    }
}

impl<'a> Attributor<'a> {
    #[must_use]
    pub fn new(sessions: &'a [Session]) -> Self {
        Self {
            claims: Claims::new(sessions),
            evidence: Evidence::new(None),
            claimants: Vec::new(),
            places: Vec::new(),
            client: Client::default(),
        }
    }

    /// Listens to what devices showed, too.
    #[must_use]
    pub fn with_devices(self, devices: &'a DeviceTable) -> Self {
        Self { evidence: Evidence::new(Some(devices)), ..self }
    }

    /// Who a flow belongs to.
    pub fn attribute(&mut self, seen: &Seen) -> (Attribution, Option<Arc<Identity>>) {
        if seen.mac.is_group() {
            return (Attribution::Unknown, None);
        }
        let client = Some((seen.mac, seen.ip, seen.vlan, seen.inner_vlan));
        if self.client.is != client {
            self.client = Client { is: client, of_device: self.claims.of_mac(seen.mac), ..Client::default() };
            self.evidence.look_up(seen);
        } else if let Some(last) = self.client.last.as_ref().filter(|last| last.counts_for(seen)) {
            return (last.attribution, last.identity.clone());
        }
        let (attribution, identity, reach_ns) = self.find(seen);
        self.client.last = self.between(seen, reach_ns).map(|(after_ns, before_ns)| {
            let identity = identity.clone();
            Answer { after_ns, before_ns, reach_ns, attribution, identity }
        });
        (attribution, identity)
    }

    /// The answer, and how long after the flow began something could have made a difference.
    fn find(&mut self, seen: &Seen) -> (Attribution, Option<Arc<Identity>>, WallNs) {
        for persons_only in [true, false] {
            if let Some(sure) = self.collect(seen, persons_only) {
                let is_there =
                    persons_only && !matches!(sure.attribution, Attribution::BeforeLogin | Attribution::Ambiguous);
                let (attribution, identity) = self.decide(seen, sure);
                return (attribution, identity, if is_there { LEARNT_LATE_NS } else { LOGIN_WINDOW_NS });
            }
        }
        (Attribution::Unknown, None, LOGIN_WINDOW_NS)
    }

    /// The last moment before a flow and the first after it at which something began or ended that could make a difference for flows
    /// of its client; `None` where something did meanwhile.
    fn between(&self, seen: &Seen, reach_ns: WallNs) -> Option<(WallNs, WallNs)> {
        let Self { claims, evidence, client, .. } = self;
        let (mut after_ns, mut before_ns) = (WallNs::MIN, WallNs::MAX);
        let to_ns = seen.reaches_to(reach_ns);
        let mut happens = |at_ns: WallNs| {
            if at_ns < seen.start_ns {
                after_ns = after_ns.max(at_ns);
            } else if at_ns > to_ns {
                before_ns = before_ns.min(at_ns);
            } else {
                return false;
            }
            true
        };
        let of_others = evidence.macs().flat_map(|mac| claims.spans(&claims.of_mac(mac)));
        let of_address = claims.anonymous_of_ip(seen.ip).chain(claims.of_ip(seen.ip));
        let mut spans = claims.spans(&client.of_device).iter().chain(of_address).chain(of_others);
        let is_quiet = spans
            .all(|span| [span.from_ns, span.to_ns].into_iter().chain(claims.session(span).changes()).all(&mut happens))
            && evidence.changes().all(&mut happens);
        is_quiet.then_some((after_ns, before_ns))
    }

    /// Gathers who claims a flow; what it is if they are one, `None` where nobody does.
    fn collect(&mut self, seen: &Seen, persons_only: bool) -> Option<Sure> {
        let Self { claims, evidence, claimants, client, .. } = self;
        claimants.clear();
        let counts = |span: &&Span| !persons_only || span.names_person;
        let of_device = claims.spans(&client.of_device);
        let there = || of_device.iter().filter(counts).filter(|span| span.covers(seen.start_ns));
        let is_named = there().any(|span| claims.session(span).holds(seen.ip, seen.start_ns));
        let is_elsewhere = |span: &Span| claims.session(span).is_elsewhere(seen.ip, seen.start_ns.max(span.from_ns));
        let is_others = |span: &Span| is_named && is_elsewhere(span);
        let speaks = |span: &Span| {
            let session = claims.session(span);
            session.is_alone(seen.start_ns) || session.holds(seen.ip, seen.start_ns) || evidence.is_shared(seen.mac)
        };
        let device = there().filter(|span| !is_others(span) && speaks(span));
        claimants.extend(device.map(|span| Claim { ground: Ground::Device, span: *span }));
        let has_device = !claimants.is_empty();
        let anonymous = claims.anonymous_of_ip(seen.ip).filter(counts);
        claimants.extend(
            anonymous
                .filter(|span| span.covers(seen.start_ns))
                .map(|span| Claim { ground: Ground::Address, span: *span }),
        );
        if claimants.is_empty() {
            let is_shared = seen.ip.is_ipv4() && evidence.is_shared(seen.mac);
            let attribution = Self::before_login(claims, of_device, claimants, seen, (persons_only, is_shared))?;
            return Some(Sure { attribution, contested: Contested::No });
        }
        // Only sessions with other addresses, on a device that has several.
        let is_anybodys = has_device
            && !is_named
            && seen.ip.is_ipv4()
            && claimants.iter().all(|claim| is_elsewhere(&claim.span))
            && evidence.is_shared(seen.mac);
        let anonymous = claims.anonymous_of_ip(seen.ip).filter(counts);
        let later = of_device.iter().filter(counts).filter(|span| !is_others(span)).chain(anonymous);
        claimants.extend(
            later
                .filter(|span| span.begins_within(seen.start_ns, seen.end_ns))
                .map(|span| Claim { ground: Ground::Later, span: *span }),
        );
        let shown = evidence.own(seen);
        let contested = Self::contest(
            claims,
            evidence,
            claimants,
            seen,
            shown.max(is_named.then_some(Worth::Leased)),
            persons_only,
        );
        let is_given = shown == Some(Worth::Leased) && contested == Contested::No;
        let mut is_shown = shown.is_some() && contested == Contested::No;
        if has_device && !is_named && !is_given {
            let before = claimants.len();
            let elsewhere = claims
                .of_ip(seen.ip)
                .filter(counts)
                .filter(|span| span.covers(seen.start_ns) && claims.session(span).client_mac != Some(seen.mac));
            claimants.extend(elsewhere.map(|span| Claim { ground: Ground::Elsewhere, span: *span }));
            is_shown &= claimants.len() == before;
        }
        let attribution = match (has_device, is_named || is_shown) {
            _ if is_anybodys && contested == Contested::No => {
                Self::only_login(claims, of_device, claimants, seen, persons_only)
            }
            (true, true) => Attribution::Authenticated,
            (true, false) => Attribution::MacOnly,
            (false, _) => Attribution::IpOnly,
        };
        Some(Sure { attribution, contested })
    }

    /// Adds the users of other devices that showed that the address is theirs, where what is known of the flow's own is not worth more.
    fn contest(
        claims: &Claims<'a>,
        evidence: &Evidence<'a>,
        claimants: &mut Vec<Claim>,
        seen: &Seen,
        own: Option<Worth>,
        persons_only: bool,
    ) -> Contested {
        let mut contested = Contested::No;
        for (mac, _) in evidence.others(seen).filter(|(_, worth)| Some(*worth) >= own) {
            let range = claims.of_mac(mac);
            let there = || {
                let of_device = claims.spans(&range).iter().filter(|span| !persons_only || span.names_person);
                of_device.filter(|span| span.covers(seen.start_ns))
            };
            let is_named = there().any(|span| claims.session(span).holds(seen.ip, seen.start_ns));
            let before = claimants.len();
            claimants.extend(
                there()
                    .filter(|span| !is_named || !claims.session(span).is_elsewhere(seen.ip, seen.start_ns))
                    .map(|span| Claim { ground: Ground::Elsewhere, span: *span }),
            );
            if claimants.len() == before {
                contested = Contested::ByDevice;
            } else if contested == Contested::No {
                contested = Contested::ByUsers;
            }
        }
        contested
    }

    /// Of a device that several share, where nobody named the address yet: whose login names it soon after, if anybody's does.
    fn only_login(
        claims: &Claims<'a>,
        of_device: &[Span],
        claimants: &mut Vec<Claim>,
        seen: &Seen,
        persons_only: bool,
    ) -> Attribution {
        let before = claimants.len();
        let login = Self::before_login(claims, of_device, claimants, seen, (persons_only, true));
        let names_it = |claim: &Claim| claims.session(&claim.span).holds(seen.ip, claim.span.from_ns);
        let is_of_device = |claim: &Claim| claim.ground != Ground::Elsewhere;
        if login.is_some() && claimants[..before].iter().all(is_of_device) && claimants[before..].iter().all(names_it) {
            claimants.drain(..before);
            return Attribution::BeforeLogin;
        }
        claimants.truncate(before);
        Attribution::Ambiguous
    }

    /// The first login of the device soon after; one that names the address before one that names others. On a device that several
    /// share only the first counts.
    fn before_login(
        claims: &Claims<'a>,
        of_device: &[Span],
        claimants: &mut Vec<Claim>,
        seen: &Seen,
        (persons_only, is_shared): (bool, bool),
    ) -> Option<Attribution> {
        let until_ns = seen.end_ns.max(seen.start_ns.saturating_add(LOGIN_WINDOW_NS));
        let later = of_device
            .iter()
            .filter(|span| (!persons_only || span.names_person) && span.begins_within(seen.start_ns, until_ns));
        let names_it = |span: &&Span| claims.session(span).holds(seen.ip, span.from_ns);
        let is_named = later.clone().any(|span| names_it(&span));
        let mut later = later.filter(|span| {
            if is_named {
                names_it(span)
            } else {
                !is_shared || !claims.session(span).is_elsewhere(seen.ip, span.from_ns)
            }
        });
        // Spans of a device are in the order of their beginning.
        let first = later.next()?;
        let as_soon = later.take_while(|span| span.from_ns == first.from_ns);
        claimants
            .extend(std::iter::once(first).chain(as_soon).map(|span| Claim { ground: Ground::Later, span: *span }));
        Some(Attribution::BeforeLogin)
    }

    /// One claimant per user; `sure` where that leaves one.
    fn decide(&mut self, seen: &Seen, sure: Sure) -> (Attribution, Option<Arc<Identity>>) {
        let Self { claims, claimants, places, .. } = self;
        if claimants.len() > 1 {
            // By user; of one user's the session that began last, whenever it came to hold the address, and of two lives of one the later.
            let rank = |claim: &Claim| {
                let (session, number) = (claims.session(&claim.span), claim.span.session);
                let id = (&session.session_id, session.source, &session.nas);
                (user_of(session).rank(), claim.ground, Reverse(session.started_ns), id, Reverse(number))
            };
            claimants.sort_unstable_by(|left, right| rank(left).cmp(&rank(right)));
            claimants.dedup_by(|other, first| {
                user_of(claims.session(&other.span)).may_be(&user_of(claims.session(&first.span)))
            });
            claimants.truncate(CLAIMANTS_MAX);
        }
        places.clear();
        places.extend(claimants.iter().map(|claim| {
            let attachment = claims.session(&claim.span).attachment_at(seen.start_ns);
            (claim.span.session, u32::try_from(attachment).unwrap_or(u32::MAX))
        }));
        let attribution = match (sure.contested, places.len()) {
            (Contested::ByDevice, _) | (Contested::ByUsers, 2..) => Attribution::Conflict,
            (Contested::No, 2..) => Attribution::Ambiguous,
            (Contested::No | Contested::ByUsers, _) => sure.attribution,
        };
        (attribution, Some(self.identity()))
    }

    /// The identity of [`Self::places`].
    fn identity(&mut self) -> Arc<Identity> {
        let Self { places, client, .. } = self;
        if let Some((_, known)) = client.identities.iter().rev().find(|(claimants, _)| claimants == places) {
            return Arc::clone(known);
        }
        let sessions: Vec<&Session> = self.claimants.iter().map(|claim| self.claims.session(&claim.span)).collect();
        let identity = Arc::new(describe(&sessions, self.places[0].1 as usize));
        self.client.identities.push((self.places.clone(), Arc::clone(&identity)));
        identity
    }
}

/// What tells claimants apart: the person, or where none is named, the device.
enum Who<'a> {
    Person(Person<'a>),
    Device(Option<MacAddr>),
}

impl<'a> Who<'a> {
    fn may_be(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Person(this), Self::Person(other)) => this.may_be(other),
            (Self::Device(this), Self::Device(other)) => this == other,
            (Self::Person(_), Self::Device(_)) | (Self::Device(_), Self::Person(_)) => false,
        }
    }

    /// Those that may be one are neighbours.
    fn rank(&self) -> (Option<Rank<'a>>, Option<MacAddr>) {
        match self {
            Self::Person(person) => (Some(person.rank()), None),
            Self::Device(mac) => (None, *mac),
        }
    }
}

fn user_of(session: &Session) -> Who<'_> {
    session.person().map_or(Who::Device(session.client_mac), Who::Person)
}

/// How a session's user is called in a row: a device's address is kept as it was given.
fn name_of(session: &Session) -> Option<Cow<'_, str>> {
    match session.person() {
        Some(person) => Some(person.name()),
        None => session.user.as_deref().map(Cow::Borrowed),
    }
}

fn describe(claimants: &[&Session], attachment: usize) -> Identity {
    let first = claimants[0];
    let only = |value: Option<&str>| (claimants.len() == 1).then_some(value).flatten().map(Arc::<str>::from);
    let attached = &first.attachments[attachment];
    Identity {
        users: claimants.iter().filter_map(|session| name_of(session)).map(Cow::into_owned).collect(),
        session_ids: claimants.iter().map(|session| session.session_id.clone()).collect(),
        auth_method: only(first.auth_method.as_deref()),
        source: first.source,
        ap_mac: (claimants.len() == 1).then_some(attached.ap_mac).flatten(),
        ssid: only(attached.ssid.as_deref()),
        nas: only(first.nas.as_deref()),
    }
}

#[cfg(test)]
mod tests;
