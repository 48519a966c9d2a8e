//! The allocator's settings.

/// Asks glibc to keep the pages of freed tensors instead of giving them back to the system and faulting them in again at
/// the next operation, which takes longer than light operations themselves. Done once per process, and not where the
/// user has set the allocator up.
pub(super) fn keep_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            let settings = ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES"];
            if settings.iter().any(|name| std::env::var_os(name).is_some()) {
                return;
            }
            // Larger ones stay mappings of their own: the most that glibc allows.
            const LARGEST: i32 = 32 << 20;
            // SAFETY: `mallopt` takes any numbers, and refuses those that it does not like.
            unsafe {
                libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST);
                libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
            }
        });
    }
}
