//! Work on many jobs side by side, with what they give taken in the order of the jobs.
//!
//! A job gives parts through a channel that holds few of them, and no job begins far ahead of the one that is being taken from:
//! so what is in memory is bounded, however many jobs there are and however much each gives.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// Parts of one job that wait to be taken.
const PARTS_MAX: usize = 2;
/// Jobs begun ahead of the one that is being taken from, per thread.
const AHEAD_PER_THREAD: usize = 4;
/// Threads, however many processors there are: memory is bounded by them.
pub(super) const THREADS_MAX: usize = 16;

/// Does all jobs side by side; what each gives, in the order of the jobs.
pub(super) fn side_by_side<J: Sync, T: Send>(jobs: &[J], work: impl Fn(&J) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut done = Vec::new();
        loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(position) else { return done };
            done.push((position, work(job)));
        }
    };
    let mut done = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads_for(jobs.len())).map(|_| scope.spawn(some)).collect();
        let each = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        each.flatten().collect::<Vec<_>>()
    });
    done.sort_unstable_by_key(|(position, _)| *position);
    done.into_iter().map(|(_, given)| given).collect()
}

fn threads_for(jobs: usize) -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(jobs)
}

/// What a job gives: parts, then its end.
pub(super) enum Flow<T, E> {
    Part(T),
    End(E),
}

/// How far the taker is.
struct Pace {
    taken: Mutex<usize>,
    moved: Condvar,
}

impl Pace {
    fn set(&self, taken: usize) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = taken;
        self.moved.notify_all();
    }

    /// Waits until a job is near enough.
    fn wait_for(&self, job: usize, ahead_max: usize) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let far = |taken: &mut usize| job.saturating_sub(*taken) >= ahead_max;
        drop(self.moved.wait_while(taken, far).unwrap_or_else(PoisonError::into_inner));
    }
}

/// Does all jobs; `take` is told whose part it gets, and says whether to go on.
pub(super) fn in_order<J: Sync, T: Send>(
    jobs: &[J],
    work: impl Fn(&J, &mut dyn FnMut(T) -> bool) + Sync,
    mut take: impl FnMut(usize, T) -> bool,
) {
    let threads = threads_for(jobs.len());
    let (senders, receivers): (Vec<_>, Vec<_>) = jobs.iter().map(|_| sync_channel(PARTS_MAX)).unzip();
    let senders: Vec<Mutex<Option<SyncSender<T>>>> =
        senders.into_iter().map(|sender| Mutex::new(Some(sender))).collect();
    let next = AtomicUsize::new(0);
    let pace = Pace { taken: Mutex::new(0), moved: Condvar::new() };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    let Some(sender) = senders.get(job) else { return };
                    pace.wait_for(job, threads * AHEAD_PER_THREAD);
                    // Taken out, so that the channel ends with the job.
                    let Some(sender) = sender.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
                    work(&jobs[job], &mut |part| sender.send(part).is_ok());
                }
            });
        }
        take_all(receivers, &pace, &mut take);
        // Nobody waits for a job that nobody will take from.
        next.store(jobs.len(), Ordering::Relaxed);
        pace.set(jobs.len());
    });
}

fn take_all<T>(receivers: Vec<Receiver<T>>, pace: &Pace, take: &mut impl FnMut(usize, T) -> bool) {
    for (job, receiver) in receivers.into_iter().enumerate() {
        pace.set(job);
        for part in receiver {
            if !take(job, part) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_in_the_order_of_the_jobs() {
        let jobs: Vec<usize> = (0..500).collect();
        let mut taken = Vec::new();
        in_order(
            &jobs,
            |job, give| (0..job % 7).for_each(|part| assert!(give((*job, part)))),
            |position, (job, part)| {
                assert_eq!(position, job);
                taken.push((job, part));
                true
            },
        );
        let expected: Vec<_> = jobs.iter().flat_map(|job| (0..job % 7).map(move |part| (*job, part))).collect();
        assert_eq!(taken, expected);
    }

    #[test]
    fn whoever_has_enough_ends_the_work() {
        let begun = AtomicUsize::new(0);
        let jobs = vec![(); 10_000];
        let mut taken = 0;
        in_order(
            &jobs,
            |(), give| {
                begun.fetch_add(1, Ordering::Relaxed);
                while give(()) {}
            },
            |_, ()| {
                taken += 1;
                taken < 3
            },
        );
        assert_eq!(taken, 3);
        assert!(begun.load(Ordering::Relaxed) <= THREADS_MAX * (AHEAD_PER_THREAD + 1));
    }

    #[test]
    fn no_jobs_are_no_work() {
        in_order(&Vec::<()>::new(), |(), _: &mut dyn FnMut(()) -> bool| {}, |_, ()| true);
    }
}
