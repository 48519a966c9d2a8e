//! Benchmarks of single kernels, on the device named by `AIGC_DEVICE`.
//!
//!     cargo bench -p aigc-benches --bench kernels [-- name]

use aigc_benches::{KERNELS, device};
use criterion::Criterion;

fn main() -> anyhow::Result<()> {
    let device = device()?;
    let mut criterion = Criterion::default().configure_from_args();
    for (name, kernel) in KERNELS {
        let mut work: Option<aigc_benches::Kernel> = None;
        criterion.bench_function(name, |bencher| {
            // Created lazily, because a filter skips most of them.
            let work = work.get_or_insert_with(|| kernel(&device));
            bencher.iter(work);
        });
    }
    criterion.final_summary();
    Ok(())
}
