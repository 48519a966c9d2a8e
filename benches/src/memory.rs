//! Throughput of memory.

use std::{hint::black_box, thread, time::Instant};

/// Words of a copy: 256 MiB, beyond all caches.
const WORDS: usize = 1 << 25;
/// Number of copies, of which the fastest counts. The first one also maps the memory.
const COPIES: usize = 6;

/// Bytes per second that all threads together read and write while they copy 256 MiB: the bound on
/// work that reads all weights of a model for little arithmetic.
pub fn copy_bytes_per_second() -> f64 {
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    let (source, mut target) = (vec![1u64; WORDS], vec![0u64; WORDS]);
    let part = WORDS.div_ceil(threads);
    let mut best = f64::INFINITY;
    for _ in 0..COPIES {
        let began = Instant::now();
        thread::scope(|scope| {
            for (from, to) in source.chunks(part).zip(target.chunks_mut(part)) {
                scope.spawn(move || to.copy_from_slice(from));
            }
        });
        best = best.min(began.elapsed().as_secs_f64());
        black_box(&target);
    }
    (2 * size_of_val(&source[..])) as f64 / best
}
