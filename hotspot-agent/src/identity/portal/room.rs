//! Room of one listener: how many connections it has at once, and how many bytes of bodies.
//!
//! Each listener has its own, so that what comes over one does not keep others from being heard. Where all is taken, the next connection
//! takes the place of one that has proven nothing: of the address with the most of them the oldest. So a stranger who holds many gives way
//! to others, and those who have shown a secret to nobody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

/// Connections at once.
pub(super) const CONNECTIONS_MAX: usize = 256;
/// Bodies that are being read and recorded: of batches four, of single reports 256.
const BODIES_KIB_MAX: usize = 16 << 10;

/// Whether a connection has shown that it may report.
#[derive(Clone, Debug)]
pub(super) struct Shown(Arc<AtomicBool>);

impl Shown {
    pub(super) fn new(has_shown: bool) -> Self {
        Self(Arc::new(AtomicBool::new(has_shown)))
    }

    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that is being served.
struct Held {
    peer: Option<IpAddr>,
    shown: Shown,
    serving: AbortHandle,
}

/// The connections of a listener, in the order in which they came.
#[derive(Default)]
pub(super) struct Room {
    held: Mutex<Vec<Held>>,
}

impl Room {
    pub(super) fn hold(&self, peer: Option<IpAddr>, shown: Shown, serving: AbortHandle) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|held| !held.serving.is_finished());
        held.push(Held { peer: peer.map(network), shown, serving });
    }

    /// Ends a connection that has proven nothing, if there is one.
    pub(super) fn make_room(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|held| !held.serving.is_finished());
        let unproven = held.iter().enumerate().filter(|(_, held)| !held.shown.is_so());
        let mut by_peer: HashMap<Option<IpAddr>, (usize, usize)> = HashMap::new();
        for (at, held) in unproven {
            by_peer.entry(held.peer).or_insert((0, at)).0 += 1;
        }
        if let Some((_, oldest)) = by_peer.into_values().max_by_key(|(count, oldest)| (*count, usize::MAX - oldest)) {
            held.remove(oldest).serving.abort();
        }
    }
}

/// Whoever has an IPv6 address mostly has the whole /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        ip @ IpAddr::V4(_) => ip,
    }
}

/// Bytes that bodies may take.
pub(super) fn room_for_bodies() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(BODIES_KIB_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_stranger_of_the_address_with_most_gives_way_and_nobody_who_has_shown_a_secret() {
        let room = Room::default();
        let mut tasks = Vec::new();
        let mut enter = |peer: &str, has_shown| {
            let task = tokio::spawn(std::future::pending::<()>());
            room.hold(Some(peer.parse().unwrap()), Shown::new(has_shown), task.abort_handle());
            tasks.push(task);
        };
        enter("10.0.0.9", false);
        for number in 0..3 {
            enter("10.0.0.1", number == 0);
        }
        enter("2001:db8::1", false);
        enter("2001:db8::2", false);
        enter("2001:db8::3", false);
        let gone = |tasks: &mut Vec<tokio::task::JoinHandle<()>>| {
            room.make_room();
            let at = tasks.iter().position(|task| {
                let held = room.held.lock().unwrap();
                !task.is_finished() && !held.iter().any(|held| held.serving.id() == task.id())
            });
            at.inspect(|at| drop(tasks.remove(*at)))
        };
        assert_eq!(gone(&mut tasks), Some(4), "three of one /64");
        assert_eq!(gone(&mut tasks), Some(2), "two of 10.0.0.1 have shown nothing, and two of the /64 came later");
        for _ in 0..4 {
            assert!(gone(&mut tasks).is_some());
        }
        assert_eq!(tasks.len(), 1);
        assert_eq!(gone(&mut tasks), None, "who has shown a secret stays");
    }
}
