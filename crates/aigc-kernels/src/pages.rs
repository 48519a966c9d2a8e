//! The allocator's settings, and the pages that memory comes in.

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

    /// Smaller buffers come from the heap, larger ones are mappings of their own: the most that
    /// glibc allows.
    const LARGEST: usize = 32 << 20;
    /// A large page.
    const PAGE: usize = 2 << 20;

    /// Asks glibc to keep the pages of freed tensors instead of giving them back to the system and
    /// faulting them in again at the next operation, which takes longer than light operations
    /// themselves, and Linux to hold the heap in pages of two megabytes: a weight in small ones
    /// takes a tenth to a third longer to come from memory. Not where the user has set the
    /// allocator up.
    pub fn keep_pages() {
        /// Where the heap ended when it was last looked at; 0 before.
        static KNOWN: AtomicUsize = AtomicUsize::new(0);
        if !is_ours() {
            return;
        }
        // SAFETY: moves nothing.
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

    /// The same for a new buffer that is no part of the heap, if it is one.
    pub(crate) fn large_pages<T>(values: &[T]) {
        let (start, len) = (values.as_ptr() as usize, size_of_val(values));
        if len >= LARGEST && is_ours() {
            advise(start.next_multiple_of(PAGE), start + len);
        }
    }

    /// The same for a buffer that is in use and will be for long.
    pub(crate) fn read_often<T>(values: &[T]) {
        /// Buffers that were seen: where they lie, and how long they are.
        static SEEN: Mutex<Option<HashMap<usize, usize>>> = Mutex::new(None);
        /// More than there are weights.
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
        // With what lies beside it, which is mostly of the same kind.
        collapse(start / PAGE * PAGE, (start + len).next_multiple_of(PAGE));
    }

    /// Sets glibc up, once. Whether the user has not.
    fn is_ours() -> bool {
        static OURS: OnceLock<bool> = OnceLock::new();
        *OURS.get_or_init(|| {
            let settings = [
                "MALLOC_MMAP_THRESHOLD_",
                "MALLOC_TRIM_THRESHOLD_",
                "MALLOC_TOP_PAD_",
                "GLIBC_TUNABLES",
            ];
            if settings.iter().any(|name| std::env::var_os(name).is_some()) {
                return false;
            }
            // SAFETY: `mallopt` takes any numbers, and refuses those that it does not like.
            unsafe {
                libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST as i32);
                libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
            }
            true
        })
    }

    /// Whether the system has large pages for those who ask.
    fn has_large_pages() -> bool {
        static HAS: OnceLock<bool> = OnceLock::new();
        *HAS.get_or_init(|| {
            let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
            setting.is_ok_and(|setting| !setting.contains("[never]"))
        })
    }

    /// Large pages from `start`, where one begins, to `end`, for what is not in use yet.
    fn advise(start: usize, end: usize) {
        give(start, end, libc::MADV_HUGEPAGE);
    }

    /// The same in place of small ones, at once.
    fn collapse(start: usize, end: usize) {
        /// Of Linux 6.1; unknown before.
        const MADV_COLLAPSE: libc::c_int = 25;
        give(start, end, MADV_COLLAPSE);
    }

    fn give(start: usize, end: usize, advice: libc::c_int) {
        let len = end.saturating_sub(start) / PAGE * PAGE;
        if len > 0 && has_large_pages() {
            // SAFETY: how memory is held, not what it holds; what is no memory of ours any more is
            // an error, which is no matter.
            unsafe { libc::madvise(start as *mut libc::c_void, len, advice) };
        }
    }

    /// Where the heap begins.
    fn heap_start() -> Option<usize> {
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        let heap = maps.lines().find(|line| line.ends_with("[heap]"))?;
        usize::from_str_radix(heap.split_once('-')?.0, 16).ok()
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
mod imp {
    pub fn keep_pages() {}
    pub(crate) fn large_pages<T>(_: &[T]) {}
    pub(crate) fn read_often<T>(_: &[T]) {}
}

#[cfg(all(test, target_os = "linux", target_env = "gnu", not(miri)))]
mod tests {
    use super::*;

    /// What Linux says of the mapping that an address lies in.
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
    fn large_buffers_have_large_pages_and_hold_what_they_held() {
        let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
            .unwrap_or_default();
        let is_set = [
            "MALLOC_MMAP_THRESHOLD_",
            "MALLOC_TRIM_THRESHOLD_",
            "MALLOC_TOP_PAD_",
            "GLIBC_TUNABLES",
        ]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
        if setting.is_empty() || setting.contains("[never]") || is_set {
            eprintln!("skipped: no large pages here");
            return;
        }
        keep_pages();
        // The heap grows, by more than its allocator asked for.
        // SAFETY: nobody else knows of this memory.
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
