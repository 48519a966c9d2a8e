//! Loops that threads of rayon's pool help with.
//!
//! A scope of rayon waits for all of its tasks. In a loop of a few microseconds, that is mostly the
//! time in which another thread wakes up. Here the caller waits for those threads only that have
//! begun to help, and a thread that has helped waits a little for the next loop before it sleeps.

use std::{
    any::Any,
    hint::spin_loop,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::yield_now,
    time::{Duration, Instant},
};

/// How long a thread that has helped waits for the next loop: longer than what lies between two
/// operations of a training step.
const PATIENCE: Duration = Duration::from_micros(50);

/// Calls `part` for every index below `count`, on the calling thread and up to `helpers` threads of
/// the pool.
///
/// # Panics
/// If `part` panics.
pub(crate) fn run(count: usize, helpers: usize, part: &(dyn Fn(usize) + Sync)) {
    let part: *const (dyn Fn(usize) + Sync + '_) = part;
    // SAFETY: only the lifetime changes. The pointer is used by threads that are inside the loop,
    // and `Open` keeps this function from returning or unwinding until there are none and no more
    // can enter.
    let part: *const (dyn Fn(usize) + Sync + 'static) = unsafe { std::mem::transmute(part) };
    let shared = Arc::new(Loop {
        part,
        count,
        next: AtomicUsize::new(0),
        inside: AtomicUsize::new(0),
        panic: Mutex::new(None),
    });
    let open = Open(&shared);
    invite(&shared, helpers);
    // SAFETY: the loop is open.
    unsafe { shared.take() };
    drop(open);
    let panic = shared
        .panic
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}

/// A loop that threads can help with.
struct Loop {
    /// Valid while the loop is open, and while a thread is inside.
    part: *const (dyn Fn(usize) + Sync),
    count: usize,
    /// The next index.
    next: AtomicUsize,
    /// Number of helping threads, plus [`CLOSED`] when no more can enter.
    inside: AtomicUsize,
    /// The panic of a helping thread.
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

    /// Takes part in the loop, unless it is closed.
    fn help(&self) {
        let enter = |inside| (inside < CLOSED).then_some(inside + 1);
        let entered = (self.inside).fetch_update(Ordering::Acquire, Ordering::Relaxed, enter);
        if entered.is_err() {
            return;
        }
        // SAFETY: this thread is inside.
        let taken = catch_unwind(AssertUnwindSafe(|| unsafe { self.take() }));
        if let Err(panic) = taken {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
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
        let mut turns = 0u32;
        while self.0.inside.load(Ordering::Acquire) != CLOSED {
            pause(&mut turns);
        }
    }
}

/// Number of threads that wait for a loop.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// Number of loops that were offered, and the last of them.
static OFFERS: AtomicUsize = AtomicUsize::new(0);
static OFFERED: Mutex<Option<Arc<Loop>>> = Mutex::new(None);

/// Offers a loop to waiting threads, and wakes others if there are fewer than `helpers`.
fn invite(shared: &Arc<Loop>, helpers: usize) {
    *OFFERED.lock().unwrap_or_else(PoisonError::into_inner) = Some(shared.clone());
    // In a total order with the operations of a thread that stops waiting: it sees the offer, or
    // does not count.
    let offer = OFFERS.fetch_add(1, Ordering::SeqCst) + 1;
    for _ in WAITING.load(Ordering::SeqCst)..helpers {
        let shared = shared.clone();
        rayon::spawn(move || help_with_all(shared, offer));
    }
}

/// Helps with a loop, the one of this offer, and with those that are offered soon after.
fn help_with_all(first: Arc<Loop>, mut offer: usize) {
    let mut next = Some(first);
    while let Some(shared) = next {
        shared.help();
        drop(shared);
        next = wait_after(&mut offer);
    }
}

/// The loop that is offered after this offer, or nothing if there is none in time.
fn wait_after(offer: &mut usize) -> Option<Arc<Loop>> {
    let last = *offer;
    let is_new = |offers: usize| offers != last;
    let (begin, mut turns) = (Instant::now(), 0);
    WAITING.fetch_add(1, Ordering::SeqCst);
    while !is_new(OFFERS.load(Ordering::Relaxed)) && begin.elapsed() < PATIENCE {
        pause(&mut turns);
    }
    WAITING.fetch_sub(1, Ordering::SeqCst);
    *offer = OFFERS.load(Ordering::SeqCst);
    let offered = || OFFERED.lock().unwrap_or_else(PoisonError::into_inner);
    is_new(*offer).then(|| offered().clone()).flatten()
}

/// Waits for a moment. After some turns, other threads may have the processor.
fn pause(turns: &mut u32) {
    *turns = turns.wrapping_add(1);
    match *turns % 64 {
        0 => yield_now(),
        _ => spin_loop(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc, thread};

    /// How often each index below `count` is called.
    fn calls(count: usize, helpers: usize) -> Vec<usize> {
        let calls: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
        run(count, helpers, &|index| {
            calls[index].fetch_add(1, Ordering::Relaxed);
        });
        calls.into_iter().map(AtomicUsize::into_inner).collect()
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

    /// A loop ends although the other thread of the pool never comes.
    #[test]
    fn threads_that_are_busy_are_not_waited_for() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
        pool.unwrap().install(|| {
            let ((began, has_begun), (end, may_end)) = (mpsc::channel(), mpsc::channel::<()>());
            rayon::spawn(move || {
                began.send(()).unwrap();
                may_end.recv().unwrap_err();
            });
            has_begun.recv().unwrap();
            assert_eq!(calls(100, 1), [1; 100]);
            drop(end);
        });
    }

    /// A panic of any thread reaches the caller, after all threads have left the loop.
    #[test]
    fn panics_reach_the_caller() {
        for bad in 0..40 {
            let running = AtomicUsize::new(0);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                run(40, 3, &|index| {
                    running.fetch_add(1, Ordering::SeqCst);
                    let message = (index == bad).then(|| format!("index {index}"));
                    running.fetch_sub(1, Ordering::SeqCst);
                    if let Some(message) = message {
                        std::panic::panic_any(message);
                    }
                });
            }));
            assert_eq!(running.load(Ordering::SeqCst), 0);
            let message = outcome.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(*message, format!("index {bad}"));
            assert_eq!(calls(30, 3), [1; 30]);
        }
    }
}
