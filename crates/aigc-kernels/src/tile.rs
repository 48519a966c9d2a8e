//! The inner product of the convolutions: a small tile of `C += A·B` that stays in registers.

use pulp::Simd;

/// Rows of the tallest tile on any CPU.
pub(crate) const TALLEST: usize = 8;

/// Rows of the tallest tile: with three vectors across, accumulators, one row of B and one
/// broadcast fill the registers (32 on AVX-512 and NEON, 16 on AVX2).
pub(crate) const fn tallest<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { TALLEST } else { 4 }
}

/// Vectors across the widest tile.
pub(crate) const WIDEST: usize = 3;

/// How A is walked: by row of the tile and place in the sum.
pub(crate) trait Left: Copy {
    /// # Safety
    /// `row` and `k` are within what the walk was made for.
    unsafe fn at(&self, row: usize, k: usize) -> f32;
}

/// How B is walked: by place in the sum.
pub(crate) trait Right: Copy {
    /// # Safety
    /// `k` is within what the walk was made for.
    unsafe fn row(&self, k: usize) -> *const f32;
}

/// Rows `row` apart, steps of the sum `k` apart.
#[derive(Clone, Copy)]
pub(crate) struct Strided {
    pub start: *const f32,
    pub row: usize,
    pub k: usize,
}

impl Left for Strided {
    #[inline(always)]
    unsafe fn at(&self, row: usize, k: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { *self.start.add(row * self.row + k * self.k) }
    }
}

impl Right for Strided {
    #[inline(always)]
    unsafe fn row(&self, k: usize) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe { self.start.add(k * self.k) }
    }
}

/// Rows (of A), or steps of the sum (of B), at offsets of a table.
#[derive(Clone, Copy)]
pub(crate) struct Listed<'a> {
    pub start: *const f32,
    pub offsets: &'a [usize],
}

impl Left for Listed<'_> {
    #[inline(always)]
    unsafe fn at(&self, row: usize, k: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { *self.start.add(*self.offsets.get_unchecked(row) + k) }
    }
}

impl Right for Listed<'_> {
    #[inline(always)]
    unsafe fn row(&self, k: usize) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe { self.start.add(*self.offsets.get_unchecked(k)) }
    }
}

/// Where the operands of a tile lie.
#[derive(Clone, Copy)]
pub(crate) struct Operands<A, B> {
    /// Length of the sum.
    pub k: usize,
    pub a: A,
    pub b: B,
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
pub(crate) unsafe fn fixed<S: Simd, A: Left, B: Right, const MR: usize, const NV: usize>(
    simd: S,
    o: Operands<A, B>,
) {
    let lanes = S::F32_LANES;
    let mut acc = [[simd.splat_f32s(0.0); NV]; MR];
    // SAFETY: the caller's promise; vectors need no alignment.
    unsafe {
        if o.add {
            for (m, row) in acc.iter_mut().enumerate() {
                for (v, acc) in row.iter_mut().enumerate() {
                    *acc =
                        o.c.add(m * o.c_row + v * lanes)
                            .cast::<S::f32s>()
                            .read_unaligned();
                }
            }
        }
        for k in 0..o.k {
            let from = o.b.row(k);
            let mut row = [simd.splat_f32s(0.0); NV];
            for (v, b_v) in row.iter_mut().enumerate() {
                *b_v = from.add(v * lanes).cast::<S::f32s>().read_unaligned();
            }
            for (m, acc) in acc.iter_mut().enumerate() {
                let a_m = simd.splat_f32s(o.a.at(m, k));
                for (acc, b_v) in acc.iter_mut().zip(row) {
                    *acc = simd.mul_add_e_f32s(a_m, b_v, *acc);
                }
            }
        }
        for (m, row) in acc.iter().enumerate() {
            for (v, acc) in row.iter().enumerate() {
                o.c.add(m * o.c_row + v * lanes)
                    .cast::<S::f32s>()
                    .write_unaligned(*acc);
            }
        }
    }
}

/// A tile of `rows` (1, 2, 4, or 8 where [`tallest`] allows) by `vectors` (1 to [`WIDEST`]).
///
/// # Safety
/// As for [`fixed`].
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, A: Left, B: Right>(
    simd: S,
    rows: usize,
    vectors: usize,
    o: Operands<A, B>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match (rows, vectors) {
            (8, 3) => fixed::<S, A, B, 8, 3>(simd, o),
            (8, 2) => fixed::<S, A, B, 8, 2>(simd, o),
            (8, 1) => fixed::<S, A, B, 8, 1>(simd, o),
            (4, 3) => fixed::<S, A, B, 4, 3>(simd, o),
            (4, 2) => fixed::<S, A, B, 4, 2>(simd, o),
            (4, 1) => fixed::<S, A, B, 4, 1>(simd, o),
            (2, 3) => fixed::<S, A, B, 2, 3>(simd, o),
            (2, 2) => fixed::<S, A, B, 2, 2>(simd, o),
            (2, 1) => fixed::<S, A, B, 2, 1>(simd, o),
            (1, 3) => fixed::<S, A, B, 1, 3>(simd, o),
            (1, 2) => fixed::<S, A, B, 1, 2>(simd, o),
            (1, 1) => fixed::<S, A, B, 1, 1>(simd, o),
            _ => unreachable!("a tile of {rows} rows and {vectors} vectors"),
        }
    }
}

/// How `rows` rows are cut into tiles of heights that [`tile`] knows: (first row, height).
pub(crate) fn row_tiles(rows: usize, tallest: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let left = rows.checked_sub(at).filter(|left| *left > 0)?;
        let height = if left >= tallest {
            tallest
        } else {
            left.next_power_of_two()
        };
        let first = at;
        at += height;
        Some((first, height))
    })
}

/// How `vectors` vectors are cut into tiles: (first vector, width). They are dealt out evenly: four
/// are two and two, not three and one, which would be slower.
pub(crate) fn column_tiles(vectors: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = vectors.div_ceil(WIDEST);
    (0..tiles).map(move |tile| {
        let (from, end) = (tile * vectors / tiles, (tile + 1) * vectors / tiles);
        (from, end - from)
    })
}
