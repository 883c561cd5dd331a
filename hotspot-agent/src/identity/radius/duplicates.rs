//! Requests that came before: what was recorded is answered again, and not recorded again (RFC 5080 §2.2.2).
//!
//! A NAS that gets no answer sends the same packet, or one that says only that it is later now (Acct-Delay-Time, with another
//! identifier and authenticator). Both are duplicates. What merely looks the same is none: sessions may end and begin again.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hotspot_core::WallNs;
use hotspot_core::radius::Request;

/// Shorter than the smallest interim interval (RFC 2869 §5.16), so that no two interims are taken for one.
const REMEMBERED: Duration = Duration::from_secs(50);
/// Requests remembered; beyond it the oldest are forgotten, and a very late duplicate is recorded again (which changes nothing).
const REMEMBERED_MAX: usize = 131_072;
/// Acct-Delay-Time is in whole seconds, rounded by each NAS as it likes.
const SAME_MOMENT_NS: WallNs = 2_000_000_000;

/// A packet as it is sent again.
type Packet = (SocketAddr, u8, [u8; 16]);

/// What is to be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    New,
    /// Another one like it is being recorded, and will be answered.
    BeingRecorded,
    Recorded,
}

/// What was asked of late.
#[derive(Default)]
pub(super) struct Duplicates {
    is_recorded: HashMap<Packet, bool>,
    /// By sender and content: when it happened, and the packet that said so first.
    said: HashMap<(IpAddr, [u8; 16]), (WallNs, Packet)>,
    /// The oldest first.
    order: VecDeque<(Instant, Packet, [u8; 16])>,
}

impl Duplicates {
    /// Notes a request; a new one is to be recorded by whoever asks, who then says [`Self::recorded`] or [`Self::forget`].
    pub(super) fn note(&mut self, client: SocketAddr, request: &Request, sent_ns: WallNs, now: Instant) -> Verdict {
        self.expire(now);
        let packet = key(client, request);
        let said = (client.ip(), request.content);
        // Only a request that says itself that it is late can be an earlier one in other words.
        let is_late = request.attributes.delay_s.is_some_and(|delay| delay > 0);
        let earlier = self.said.get(&said).filter(|(at_ns, _)| is_late && (at_ns - sent_ns).abs() <= SAME_MOMENT_NS);
        let known = self.is_recorded.get(&packet).or_else(|| self.is_recorded.get(&earlier?.1));
        match known {
            Some(true) => Verdict::Recorded,
            Some(false) => Verdict::BeingRecorded,
            None => {
                self.is_recorded.insert(packet, false);
                self.said.insert(said, (sent_ns, packet));
                self.order.push_back((now, packet, request.content));
                Verdict::New
            }
        }
    }

    pub(super) fn recorded(&mut self, client: SocketAddr, request: &Request) {
        if let Some(is_recorded) = self.is_recorded.get_mut(&key(client, request)) {
            *is_recorded = true;
        }
    }

    /// It could not be recorded: when it comes again it is new.
    pub(super) fn forget(&mut self, client: SocketAddr, request: &Request) {
        self.is_recorded.remove(&key(client, request));
    }

    fn expire(&mut self, now: Instant) {
        while let Some((at, packet, content)) = self.order.front()
            && (now.saturating_duration_since(*at) > REMEMBERED || self.order.len() >= REMEMBERED_MAX)
        {
            self.is_recorded.remove(packet);
            let said = (packet.0.ip(), *content);
            if self.said.get(&said).is_some_and(|(_, by)| by == packet) {
                self.said.remove(&said);
            }
            self.order.pop_front();
        }
    }
}

fn key(client: SocketAddr, request: &Request) -> Packet {
    (client, request.exchange.identifier, request.exchange.authenticator)
}

#[cfg(test)]
mod tests {
    use hotspot_core::radius::{self, Demand};

    use super::*;

    const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 20, 0, 2)), 4711);
    const SECOND: WallNs = 1_000_000_000;

    /// A start or a stop, with Acct-Delay-Time where it is late.
    fn request(identifier: u8, status: u8, delay_s: Option<u8>) -> Request {
        let mut packet = vec![4, identifier, 0, 29];
        packet.extend([0; 16]);
        packet.extend([40, 6, 0, 0, 0, status, 44, 3, b'a']);
        if let Some(delay_s) = delay_s {
            packet.extend([41, 6, 0, 0, 0, delay_s]);
            packet[3] += 6;
        }
        radius::sign(&mut packet, b"s");
        let Ok(radius::Packet::Accounting(request)) = radius::parse(&packet, b"s", Demand::Authenticator) else {
            panic!("a request")
        };
        *request
    }

    #[test]
    fn a_packet_sent_again_is_known_for_a_while() {
        let (mut known, began, start) = (Duplicates::default(), Instant::now(), request(1, 1, None));
        assert_eq!(known.note(CLIENT, &start, 0, began), Verdict::New);
        assert_eq!(known.note(CLIENT, &start, SECOND, began), Verdict::BeingRecorded);
        known.recorded(CLIENT, &start);
        assert_eq!(known.note(CLIENT, &start, 9 * SECOND, began + REMEMBERED), Verdict::Recorded);
        let later = began + REMEMBERED + Duration::from_secs(1);
        assert_eq!(known.note(CLIENT, &start, 99 * SECOND, later), Verdict::New);
        assert_eq!((known.is_recorded.len(), known.said.len(), known.order.len()), (1, 1, 1));
    }

    #[test]
    fn what_was_not_recorded_is_new_again() {
        let (mut known, now, start) = (Duplicates::default(), Instant::now(), request(1, 1, None));
        known.note(CLIENT, &start, 0, now);
        known.forget(CLIENT, &start);
        assert_eq!(known.note(CLIENT, &start, 0, now), Verdict::New);
        known.forget(CLIENT, &start);
        assert_eq!(known.note(CLIENT, &request(2, 1, Some(6)), SECOND, now), Verdict::New);
    }

    #[test]
    fn a_late_one_in_other_words_is_the_same() {
        let (mut known, now, start) = (Duplicates::default(), Instant::now(), request(1, 1, None));
        known.note(CLIENT, &start, 100 * SECOND, now);
        assert_eq!(known.note(CLIENT, &request(2, 1, Some(3)), 101 * SECOND, now), Verdict::BeingRecorded);
        known.recorded(CLIENT, &start);
        assert_eq!(known.note(CLIENT, &request(3, 1, Some(9)), 100 * SECOND, now), Verdict::Recorded);
        let elsewhere = SocketAddr::new([10, 20, 0, 3].into(), 4711);
        assert_eq!(known.note(elsewhere, &request(3, 1, Some(9)), 100 * SECOND, now), Verdict::New);
    }

    #[test]
    fn a_session_that_ends_and_begins_again_is_not() {
        let (mut known, now) = (Duplicates::default(), Instant::now());
        assert_eq!(known.note(CLIENT, &request(1, 1, None), 0, now), Verdict::New);
        assert_eq!(known.note(CLIENT, &request(2, 2, None), SECOND, now), Verdict::New);
        assert_eq!(known.note(CLIENT, &request(3, 1, None), 2 * SECOND, now), Verdict::New);
        assert_eq!(known.note(CLIENT, &request(4, 1, Some(1)), 30 * SECOND, now), Verdict::New);
    }
}
