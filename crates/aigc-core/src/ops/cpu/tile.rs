//! The inner product of all products: a small tile of `C += A·B` that stays in registers.

use pulp::Simd;

/// Rows of the tallest tile: with three vectors across, accumulators, one row of B and one broadcast fill the registers
/// (32 on AVX-512 and NEON, 16 on AVX2).
pub(crate) const fn tallest<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 8 } else { 4 }
}

/// Vectors across the widest tile.
pub(crate) const WIDEST: usize = 3;

/// Where the operands of a tile lie.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    /// Length of the sum.
    pub k: usize,
    /// First element of A, and the steps from row to row and along the sum.
    pub a: *const f32,
    pub a_row: usize,
    pub a_k: usize,
    /// First row of B, and the step along the sum.
    pub b: *const f32,
    pub b_k: usize,
    /// First element of C, and the step from row to row.
    pub c: *mut f32,
    pub c_row: usize,
    /// Whether C starts from what it holds.
    pub add: bool,
}

/// `C[MR, NV·lanes] = A[MR, k]·B[k, NV·lanes]`, or `+=`.
///
/// # Safety
/// All of A, B and C as `o` describes them may be read, and C written, by this thread alone.
#[inline(always)]
unsafe fn fixed<S: Simd, const MR: usize, const NV: usize>(simd: S, o: Operands) {
    let lanes = S::F32_LANES;
    let mut acc = [[simd.splat_f32s(0.0); NV]; MR];
    // SAFETY: the caller's promise; vectors need no alignment.
    unsafe {
        if o.add {
            for (m, row) in acc.iter_mut().enumerate() {
                for (v, acc) in row.iter_mut().enumerate() {
                    *acc = o.c.add(m * o.c_row + v * lanes).cast::<S::f32s>().read_unaligned();
                }
            }
        }
        let (mut a, mut b) = (o.a, o.b);
        for _ in 0..o.k {
            let mut row = [simd.splat_f32s(0.0); NV];
            for (v, b_v) in row.iter_mut().enumerate() {
                *b_v = b.add(v * lanes).cast::<S::f32s>().read_unaligned();
            }
            for (m, acc) in acc.iter_mut().enumerate() {
                let a_m = simd.splat_f32s(*a.add(m * o.a_row));
                for (acc, b_v) in acc.iter_mut().zip(row) {
                    *acc = simd.mul_add_e_f32s(a_m, b_v, *acc);
                }
            }
            a = a.add(o.a_k);
            b = b.add(o.b_k);
        }
        for (m, row) in acc.iter().enumerate() {
            for (v, acc) in row.iter().enumerate() {
                o.c.add(m * o.c_row + v * lanes).cast::<S::f32s>().write_unaligned(*acc);
            }
        }
    }
}

/// A tile of `rows` (1, 2, 4, or 8 where [`tallest`] allows) by `vectors` (1 to [`WIDEST`]).
///
/// # Safety
/// As for [`fixed`].
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd>(simd: S, rows: usize, vectors: usize, o: Operands) {
    // SAFETY: the caller's promise.
    unsafe {
        match (rows, vectors) {
            (8, 3) => fixed::<S, 8, 3>(simd, o),
            (8, 2) => fixed::<S, 8, 2>(simd, o),
            (8, 1) => fixed::<S, 8, 1>(simd, o),
            (4, 3) => fixed::<S, 4, 3>(simd, o),
            (4, 2) => fixed::<S, 4, 2>(simd, o),
            (4, 1) => fixed::<S, 4, 1>(simd, o),
            (2, 3) => fixed::<S, 2, 3>(simd, o),
            (2, 2) => fixed::<S, 2, 2>(simd, o),
            (2, 1) => fixed::<S, 2, 1>(simd, o),
            (1, 3) => fixed::<S, 1, 3>(simd, o),
            (1, 2) => fixed::<S, 1, 2>(simd, o),
            (1, 1) => fixed::<S, 1, 1>(simd, o),
            _ => unreachable!("a tile of {rows} rows and {vectors} vectors"),
        }
    }
}

/// How `rows` rows are cut into tiles of heights that [`tile`] knows: (first row, height).
pub(crate) fn row_tiles(rows: usize, tallest: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let left = rows.checked_sub(at).filter(|left| *left > 0)?;
        let height = if left >= tallest { tallest } else { left.next_power_of_two() };
        let first = at;
        at += height;
        Some((first, height))
    })
}
