//! Which instructions the kernels are run with.

use pulp::Arch;
use std::sync::OnceLock;

/// The widest instructions of this machine, or what `AIGC_SIMD` allows: `scalar`, or on x86-64
/// `avx2`. Narrower ones than the machine's are for tests. Matrix products choose for themselves.
///
/// # Panics
/// If `AIGC_SIMD` holds anything else.
pub(crate) fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(|| match std::env::var("AIGC_SIMD").as_deref() {
        Ok("scalar") => Arch::Scalar,
        #[cfg(target_arch = "x86_64")]
        Ok("avx2") => pulp::x86::V3::try_new().map_or(Arch::Scalar, Arch::V3),
        Ok(other) => panic!("AIGC_SIMD is `{other}`; it may be `scalar` or, on x86-64, `avx2`"),
        Err(_) => Arch::new(),
    })
}

/// Numbers in a vector.
pub(crate) fn lanes() -> usize {
    struct Lanes;
    impl pulp::WithSimd for Lanes {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    arch().dispatch(Lanes)
}
