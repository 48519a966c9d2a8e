//! Loops that threads of rayon's pool help with.
//!
//! A scope of rayon waits for all of its tasks. In a loop of a few microseconds, that is mostly the
//! time in which another thread wakes up. Here the caller waits for those threads only that have
//! begun to help, and a helper looks for the next loop for a while before it returns to the pool.

use std::{
    any::Any,
    hint::spin_loop,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::yield_now,
    time::{Duration, Instant},
};

/// How long a helper waits for the next loop: longer than what lies between two operations of a
/// training step.
const PATIENCE: Duration = Duration::from_micros(50);

/// How long a helper stays away from the pool, whose other tasks wait meanwhile.
const SHIFT: Duration = Duration::from_millis(5);

/// Calls `part` for every index below `count`, on the calling thread and at most `helpers` threads
/// of rayon's pools.
///
/// # Panics
/// If `part` panics.
pub(crate) fn run(count: usize, helpers: usize, part: &(dyn Fn(usize) + Sync)) {
    let part: *const (dyn Fn(usize) + Sync + '_) = part;
    // SAFETY: only the lifetime changes. `Loop::take`, which alone uses the pointer, is called by
    // threads that are inside the loop, and `Open` keeps this function from returning or unwinding
    // until there are none and no more can enter.
    let part: *const (dyn Fn(usize) + Sync + 'static) = unsafe { std::mem::transmute(part) };
    let shared = Arc::new(Loop {
        part,
        count,
        helpers,
        next: AtomicUsize::new(0),
        inside: AtomicUsize::new(0),
        panic: Mutex::new(None),
    });
    let open = Open(&shared);
    offer(&shared);
    // SAFETY: the loop is open.
    unsafe { shared.take() };
    drop(open);
    let panic = lock(&shared.panic).take();
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}

/// A loop that threads can help with.
struct Loop {
    /// Valid while the loop is open, and while a thread is inside.
    part: *const (dyn Fn(usize) + Sync),
    count: usize,
    /// Limit on the number of helpers inside.
    helpers: usize,
    /// The next index.
    next: AtomicUsize,
    /// Number of helpers inside, plus [`CLOSED`] when no more can enter.
    inside: AtomicUsize,
    /// The panic of a helper.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `part` points to a closure that may be called by several threads at once.
unsafe impl Send for Loop {}
// SAFETY: as above.
unsafe impl Sync for Loop {}

const CLOSED: usize = 1 << (usize::BITS - 1);

impl Loop {
    /// Calls `part` for indices until there are none left.
    ///
    /// # Safety
    /// The caller is inside the loop, or has opened it.
    unsafe fn take(&self) {
        // SAFETY: the pointer is valid meanwhile, by the caller's contract.
        let part = unsafe { &*self.part };
        loop {
            match self.next.fetch_add(1, Ordering::Relaxed) {
                index if index < self.count => part(index),
                _ => break,
            }
        }
    }

    /// Takes part in the loop, unless it is closed, has enough helpers or no index left.
    fn help(&self) {
        if self.next.load(Ordering::Relaxed) >= self.count {
            return;
        }
        let enter = |inside| (inside < self.helpers).then_some(inside + 1);
        let entered = (self.inside).fetch_update(Ordering::Acquire, Ordering::Relaxed, enter);
        if entered.is_err() {
            return;
        }
        // SAFETY: this thread is inside.
        let taken = catch_unwind(AssertUnwindSafe(|| unsafe { self.take() }));
        let mut panic = taken.err();
        if let first @ None = &mut *lock(&self.panic) {
            *first = panic.take();
        }
        self.inside.fetch_sub(1, Ordering::Release);
    }
}

/// An open loop. When it is dropped, the loop is closed, and no thread is inside anymore.
struct Open<'a>(&'a Loop);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // After a panic of the caller, the helpers need not go on.
        self.0.next.fetch_max(self.0.count, Ordering::Relaxed);
        self.0.inside.fetch_or(CLOSED, Ordering::Acquire);
        let mut turns = 0;
        while self.0.inside.load(Ordering::Acquire) != CLOSED {
            pause(&mut turns);
        }
    }
}

/// Number of helpers: tasks of the pool that have not begun, help, or wait for a loop.
static HELPERS: AtomicUsize = AtomicUsize::new(0);
/// Number of loops that were offered, and the last of them. Of loops that several threads offer at
/// once, the others may get no help.
static OFFERS: AtomicUsize = AtomicUsize::new(0);
static OFFERED: Mutex<Option<Arc<Loop>>> = Mutex::new(None);

/// Offers a loop to the helpers, and makes more of them if there are too few.
fn offer(shared: &Arc<Loop>) {
    let former = lock(&OFFERED).replace(shared.clone());
    drop(former);
    // In one order with the operations of a helper that leaves: it sees the offer, or does not
    // count.
    OFFERS.fetch_add(1, Ordering::SeqCst);
    let one_more = |helpers| (helpers < shared.helpers).then_some(helpers + 1);
    while (HELPERS.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more)).is_ok() {
        rayon::spawn(help);
    }
}

/// Helps with the loops that are offered, until none was for [`PATIENCE`], or for a [`SHIFT`].
fn help() {
    let begin = Instant::now();
    let (mut idle_since, mut turns) = (begin, 0);
    let mut seen = None;
    let is_new = |seen: &mut Option<usize>| {
        let offers = Some(OFFERS.load(Ordering::SeqCst));
        std::mem::replace(seen, offers) != offers
    };
    loop {
        if is_new(&mut seen) {
            help_with_last();
            idle_since = Instant::now();
        }
        let now = Instant::now();
        if now - idle_since >= PATIENCE || now - begin >= SHIFT {
            break;
        }
        pause(&mut turns);
    }
    HELPERS.fetch_sub(1, Ordering::SeqCst);
    if is_new(&mut seen) {
        help_with_last();
    }
}

/// Helps with the loop that was offered last.
fn help_with_last() {
    let last = lock(&OFFERED).clone();
    if let Some(last) = last {
        last.help();
    }
}

/// Waits for a moment. After some turns, other threads may have the processor.
fn pause(turns: &mut u32) {
    *turns = turns.wrapping_add(1);
    match *turns % 64 {
        0 => yield_now(),
        _ => spin_loop(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{atomic::AtomicBool, mpsc},
        thread,
    };

    /// How often each index below `count` is called.
    fn calls(count: usize, helpers: usize) -> Vec<usize> {
        let calls: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
        run(count, helpers, &|index| {
            calls[index].fetch_add(1, Ordering::Relaxed);
        });
        calls.into_iter().map(AtomicUsize::into_inner).collect()
    }

    /// Two threads that wait for each other: 0 if none came, then 1, and 2 when they have met. 3 if
    /// the first one has left alone.
    #[derive(Default)]
    struct Meeting(AtomicUsize);

    impl Meeting {
        /// Whether the other thread came.
        fn wait(&self) -> bool {
            let step = |from: usize, to: usize| {
                let order = Ordering::SeqCst;
                self.0.compare_exchange(from, to, order, order).is_ok()
            };
            if !step(0, 1) {
                return step(1, 2);
            }
            let begin = Instant::now();
            while self.0.load(Ordering::SeqCst) == 1 {
                if begin.elapsed() > Duration::from_millis(500) && step(1, 3) {
                    return false;
                }
                yield_now();
            }
            true
        }
    }

    /// Calls `attempt` until it returns true. A loop may get no help while other tests offer
    /// theirs.
    fn succeeds_once(mut attempt: impl FnMut() -> bool + Send) {
        pool(2).install(|| assert!((0..40).any(|_| attempt()), "no thread helped"));
    }

    fn pool(threads: usize) -> rayon::ThreadPool {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap()
    }

    /// Loops of several threads at once, one after the other without a pause, and nested ones.
    #[test]
    fn every_index_is_called_once() {
        thread::scope(|scope| {
            for caller in 0..4 {
                scope.spawn(move || {
                    for round in 0..2000 {
                        let count = (7 * round + caller) % 50;
                        assert_eq!(calls(count, 3), vec![1; count]);
                    }
                });
            }
        });
        let inner = Mutex::new(0);
        run(5, 3, &|index| {
            assert_eq!(calls(20 + index, 3), vec![1; 20 + index]);
            *inner.lock().unwrap() += 1;
        });
        assert_eq!(inner.into_inner().unwrap(), 5);
    }

    /// Two parts that wait for each other need two threads: in the first loop, and in those after
    /// it, which a waiting helper joins.
    #[test]
    fn another_thread_helps() {
        let mut met = 0;
        succeeds_once(|| {
            let (meeting, apart) = (Meeting::default(), AtomicBool::new(false));
            run(2, 1, &|_| {
                if !meeting.wait() {
                    apart.store(true, Ordering::SeqCst);
                }
            });
            met += usize::from(!apart.into_inner());
            met == 10
        });
    }

    /// A loop ends although the other thread of the pool never comes, and such loops leave no more
    /// tasks behind than there may be helpers.
    #[test]
    fn threads_that_are_busy_are_not_waited_for() {
        pool(2).install(|| {
            let ((began, has_begun), (end, may_end)) = (mpsc::channel(), mpsc::channel::<()>());
            rayon::spawn(move || {
                began.send(()).unwrap();
                may_end.recv().unwrap_err();
            });
            has_begun.recv().unwrap();
            for _ in 0..1000 {
                assert_eq!(calls(10, 1), [1; 10]);
            }
            // Of this test and those beside it, which have up to three.
            assert!(HELPERS.load(Ordering::SeqCst) <= 3);
            drop(end);
        });
    }

    /// A panic of a helper reaches the caller.
    #[test]
    fn panics_of_helpers_reach_the_caller() {
        succeeds_once(|| {
            let (meeting, caller) = (Meeting::default(), thread::current().id());
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                run(2, 1, &|_| {
                    if meeting.wait() && thread::current().id() != caller {
                        std::panic::panic_any("helper");
                    }
                });
            }));
            assert_eq!(calls(30, 1), [1; 30]);
            outcome.is_err_and(|payload| *payload.downcast::<&str>().unwrap() == "helper")
        });
    }

    /// A caller that panics does not unwind before its helper has left the closure.
    #[test]
    fn panics_of_the_caller_wait_for_helpers() {
        succeeds_once(|| {
            let (meeting, caller) = (Meeting::default(), thread::current().id());
            let finished = AtomicBool::new(false);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                run(2, 1, &|_| {
                    if !meeting.wait() {
                        return;
                    }
                    if thread::current().id() == caller {
                        std::panic::panic_any("caller");
                    }
                    thread::sleep(Duration::from_millis(50));
                    finished.store(true, Ordering::SeqCst);
                });
            }));
            let Err(payload) = outcome else {
                return false;
            };
            assert!(finished.load(Ordering::SeqCst), "a helper was still inside");
            *payload.downcast::<&str>().unwrap() == "caller"
        });
    }
}
