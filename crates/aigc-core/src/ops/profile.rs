//! Where the time goes: how long each operation took on the CPU, summed.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

static RECORDING: AtomicBool = AtomicBool::new(false);
static TIMES: Mutex<BTreeMap<&str, OperationTime>> = Mutex::new(BTreeMap::new());

/// How often one operation ran, and how long in all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OperationTime {
    /// Calls.
    pub calls: usize,
    /// Wall clock, from call to return.
    pub time: Duration,
}

/// Records every operation from now on, in the whole process, until [`stop`]: all of Flex's, and
/// those of LibTorch's that have bodies of their own.
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

/// Ends the recording: every operation that ran since [`start`], by name.
pub fn stop() -> BTreeMap<&'static str, OperationTime> {
    RECORDING.store(false, Ordering::Relaxed);
    std::mem::take(&mut table())
}

fn table() -> std::sync::MutexGuard<'static, BTreeMap<&'static str, OperationTime>> {
    TIMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Times what follows until it is dropped, if anyone records.
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
    /// The same time under another name.
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
