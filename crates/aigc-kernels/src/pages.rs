//! Settings of the memory allocator, and large pages.
//!
//! Freed tensors stay mapped instead of being returned to the system, and large buffers lie in
//! pages of two megabytes, both on Linux with glibc only.

pub use imp::keep_pages;
pub(crate) use imp::{large_pages, read_often};

#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
mod imp {
    use std::{
        collections::HashMap,
        sync::{
            Mutex, OnceLock, PoisonError,
            atomic::{AtomicUsize, Ordering},
        },
    };

    /// Smaller buffers come from the heap, larger ones are separate mappings: the largest threshold
    /// that glibc allows.
    const LARGEST: usize = 32 << 20;
    /// Size of a large page.
    const PAGE: usize = 2 << 20;

    /// The variables by which a user configures glibc's allocator.
    const SETTINGS: [&str; 4] = [
        "MALLOC_MMAP_THRESHOLD_",
        "MALLOC_TRIM_THRESHOLD_",
        "MALLOC_TOP_PAD_",
        "GLIBC_TUNABLES",
    ];

    /// Keeps the pages of freed tensors, and holds the heap in large pages. Does nothing if the
    /// user has configured the allocator by one of glibc's environment variables.
    ///
    /// glibc returns freed pages to the system by default; to fault them in again at the next
    /// operation takes longer than light operations themselves. With small pages, reading a weight
    /// from memory takes a tenth to a third longer.
    pub fn keep_pages() {
        /// End of the heap at the last call; 0 before the first.
        static KNOWN: AtomicUsize = AtomicUsize::new(0);
        if !is_ours() {
            return;
        }
        // SAFETY: an increment of 0 only queries the end of the heap.
        let end = unsafe { libc::sbrk(0) } as usize;
        if end == KNOWN.load(Ordering::Relaxed) {
            return;
        }
        let start = match KNOWN.swap(end, Ordering::Relaxed) {
            0 => heap_start().unwrap_or(end).next_multiple_of(PAGE),
            known => known.min(end) / PAGE * PAGE,
        };
        advise(start, end);
        collapse(start, end);
    }

    /// Requests large pages for a new buffer, if it is a mapping outside the heap.
    pub(crate) fn large_pages<T>(values: &[T]) {
        let (start, len) = (values.as_ptr() as usize, size_of_val(values));
        if len >= LARGEST && is_ours() {
            advise(start.next_multiple_of(PAGE), start + len);
        }
    }

    /// Moves a buffer that is in use, and is read often, to large pages.
    pub(crate) fn read_often<T>(values: &[T]) {
        /// Lengths of the buffers that were handled, by address.
        static SEEN: Mutex<Option<HashMap<usize, usize>>> = Mutex::new(None);
        /// More than the number of weights of a model.
        const MOST: usize = 1 << 14;
        let (start, len) = (values.as_ptr() as usize, size_of_val(values));
        if len < PAGE || !is_ours() {
            return;
        }
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.get_or_insert_default();
        if seen.get(&start) == Some(&len) {
            return;
        }
        if seen.len() >= MOST {
            seen.clear();
        }
        seen.insert(start, len);
        advise(start.next_multiple_of(PAGE), start + len);
        // Including the rest of its first and last page, which is mostly other weights.
        collapse(start / PAGE * PAGE, (start + len).next_multiple_of(PAGE));
    }

    /// Configures glibc at the first call. Returns false if the user has configured it instead.
    fn is_ours() -> bool {
        static OURS: OnceLock<bool> = OnceLock::new();
        *OURS.get_or_init(|| {
            if is_configured() {
                return false;
            }
            // SAFETY: `mallopt` accepts any numbers, and rejects unsuitable ones. Each setting is
            // one word, of which an allocation of another thread reads the old or the new value.
            unsafe {
                libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST as i32);
                libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
            }
            true
        })
    }

    /// Whether the user has configured glibc's allocator.
    pub(super) fn is_configured() -> bool {
        SETTINGS.iter().any(|name| std::env::var_os(name).is_some())
    }

    /// Whether the system provides large pages on request.
    fn has_large_pages() -> bool {
        static HAS: OnceLock<bool> = OnceLock::new();
        *HAS.get_or_init(|| {
            let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
            setting.is_ok_and(|setting| !setting.contains("[never]"))
        })
    }

    /// Requests large pages for the range from `start`, a multiple of [`PAGE`], to `end`, when it
    /// is first used.
    fn advise(start: usize, end: usize) {
        madvise(start, end, libc::MADV_HUGEPAGE);
    }

    /// Replaces the small pages of the range by large ones now.
    fn collapse(start: usize, end: usize) {
        /// Since Linux 6.1; an error before.
        const MADV_COLLAPSE: libc::c_int = 25;
        madvise(start, end, MADV_COLLAPSE);
    }

    fn madvise(start: usize, end: usize, advice: libc::c_int) {
        let len = end.saturating_sub(start) / PAGE * PAGE;
        if len > 0 && has_large_pages() {
            // SAFETY: this advice does not change the contents of memory. A range that is no longer
            // mapped is an error, which can be ignored.
            unsafe { libc::madvise(start as *mut libc::c_void, len, advice) };
        }
    }

    /// Start address of the heap.
    fn heap_start() -> Option<usize> {
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        let heap = maps.lines().find(|line| line.ends_with("[heap]"))?;
        usize::from_str_radix(heap.split_once('-')?.0, 16).ok()
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
mod imp {
    /// Does nothing on this platform.
    pub fn keep_pages() {}
    pub(crate) fn large_pages<T>(_: &[T]) {}
    pub(crate) fn read_often<T>(_: &[T]) {}
}

#[cfg(all(test, target_os = "linux", target_env = "gnu", not(miri)))]
mod tests {
    use super::*;

    /// The kernel's flags of the mapping that contains `address`.
    fn flags(address: usize) -> Option<String> {
        let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next()?.split_once('-');
            let bounds =
                range.map(|(a, b)| (usize::from_str_radix(a, 16), usize::from_str_radix(b, 16)));
            if let Some((Ok(start), Ok(end))) = bounds {
                inside = (start..end).contains(&address);
            }
            if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
                return Some(flags.to_string());
            }
        }
        None
    }

    #[test]
    fn large_buffers_get_large_pages_and_keep_their_contents() {
        let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
            .unwrap_or_default();
        if setting.is_empty() || setting.contains("[never]") || imp::is_configured() {
            eprintln!("skipped: this system has no large pages");
            return;
        }
        keep_pages();
        // The heap grows by more than the allocator requested.
        // SAFETY: no other code uses this memory.
        let heap = unsafe { libc::sbrk(16 << 20) } as usize;
        keep_pages();
        let used: Vec<u32> = (0..3 << 20).collect();
        read_often(&used);
        let new = vec![7_u32; 16 << 20];
        large_pages(&new);
        for middle in [
            heap + (8 << 20),
            used.as_ptr() as usize + (6 << 20),
            new.as_ptr() as usize + (32 << 20),
        ] {
            let flags = flags(middle).expect("it is mapped");
            assert!(flags.split(' ').any(|flag| flag == "hg"), "{flags}");
        }
        assert!(
            used.iter()
                .enumerate()
                .all(|(i, value)| *value as usize == i)
                && new.iter().all(|value| *value == 7)
        );
    }
}
