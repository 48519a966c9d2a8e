//! Selection of the vector instruction set.

use crate::tile::widest;
use pulp::Arch;
use std::sync::OnceLock;

/// The widest instruction set of this machine, or the one that the environment variable `AIGC_SIMD`
/// selects for tests: `scalar`, or on x86-64 `avx2`. Matrix products (gemm) select theirs on their
/// own.
///
/// # Panics
/// If `AIGC_SIMD` has any other value.
pub(crate) fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(|| match std::env::var("AIGC_SIMD").as_deref() {
        Ok("scalar") => Arch::Scalar,
        #[cfg(target_arch = "x86_64")]
        Ok("avx2") => pulp::x86::V3::try_new().map_or(Arch::Scalar, Arch::V3),
        Ok(other) => panic!("AIGC_SIMD is `{other}`, expected `scalar` or, on x86-64, `avx2`"),
        Err(_) => Arch::new(),
    })
}

/// `f32` lanes of a vector, and vectors of the widest tile.
pub(crate) fn vectors() -> [usize; 2] {
    struct Vectors;
    impl pulp::WithSimd for Vectors {
        type Output = [usize; 2];

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> [usize; 2] {
            [S::F32_LANES, widest::<S>()]
        }
    }
    arch().dispatch(Vectors)
}
