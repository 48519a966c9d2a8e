//! Profiling: the total time of every operation on the CPU.

#[cfg(any(feature = "flex", feature = "tch"))]
use std::time::Instant;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

static RECORDING: AtomicBool = AtomicBool::new(false);
static TIMES: Mutex<BTreeMap<&str, OperationTime>> = Mutex::new(BTreeMap::new());

/// Number of calls and total time of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OperationTime {
    /// Number of calls.
    pub calls: usize,
    /// Total wall-clock time from call to return.
    pub time: Duration,
}

/// Starts recording in the whole process until [`stop`] is called: all operations of Flex, and
/// those that LibTorch overrides. Earlier records are removed.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use aigc_core::{nn::Activation, ops::{self, profile}};
/// use burn::tensor::{Device, Tensor};
///
/// profile::start();
/// ops::activation(Tensor::<2>::ones([64, 64], &Device::flex()), Activation::Silu);
/// let times = profile::stop();
/// assert_eq!(times["activation_forward"].calls, 1);
/// # }
/// ```
pub fn start() {
    table().clear();
    RECORDING.store(true, Ordering::Relaxed);
}

/// Stops recording, and returns the operations that ran since [`start`], by name.
pub fn stop() -> BTreeMap<&'static str, OperationTime> {
    RECORDING.store(false, Ordering::Relaxed);
    std::mem::take(&mut table())
}

fn table() -> std::sync::MutexGuard<'static, BTreeMap<&'static str, OperationTime>> {
    TIMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records the time until the returned value is dropped; `None` if recording is off.
#[cfg(any(feature = "flex", feature = "tch"))]
pub(super) fn timer(name: &'static str) -> Option<Timer> {
    RECORDING.load(Ordering::Relaxed).then(|| Timer {
        name,
        start: Instant::now(),
    })
}

#[cfg(any(feature = "flex", feature = "tch"))]
pub(super) struct Timer {
    name: &'static str,
    start: Instant,
}

#[cfg(feature = "tch")]
impl Timer {
    /// Records the time under another name.
    pub(super) fn renamed(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }
}

#[cfg(any(feature = "flex", feature = "tch"))]
impl Drop for Timer {
    fn drop(&mut self) {
        let mut table = table();
        let entry = table.entry(self.name).or_default();
        entry.calls += 1;
        entry.time += self.start.elapsed();
    }
}
