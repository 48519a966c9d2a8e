//! The micro-kernel of the convolutions: a small tile of `C += A·B` with accumulators in registers.

use pulp::Simd;

/// Rows of the tallest tile on any CPU: the maximum of [`tallest`].
pub(crate) const TALLEST: usize = 8;

/// Rows of the tallest tile.
pub(crate) const fn tallest<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { TALLEST } else { 4 }
}

/// Width of the widest tile in vectors.
pub(crate) const fn widest<S: Simd>() -> usize {
    widest_of::<S>(tallest::<S>())
}

/// Vectors of the widest tile with `rows` rows. The accumulators, one row of B and one broadcast
/// element of A leave a register free (of 32 on AVX-512 and NEON, 16 on AVX2): 4×3 fits AVX2
/// exactly, but the compiler then keeps an accumulator in memory, which doubles the time.
pub(crate) const fn widest_of<S: Simd>(rows: usize) -> usize {
    match S::REGISTER_COUNT.saturating_sub(2) / (rows + 1) {
        0 | 1 => 1,
        2 => 2,
        _ => 3,
    }
}

/// Addressing of A: by row of the tile and index `k` of the sum.
pub(crate) trait Left: Copy {
    /// # Safety
    /// `row` and `k` are in the range that the addresses were made for.
    unsafe fn at(&self, row: usize, k: usize) -> f32;
}

/// Addressing of B: by index `k` of the sum.
pub(crate) trait Right: Copy {
    /// # Safety
    /// `k` is in the range that the addresses were made for.
    unsafe fn row(&self, k: usize) -> *const f32;
}

/// Strided addressing, with a row stride `row` and a stride `k` along the sum.
#[derive(Clone, Copy)]
pub(crate) struct Strided {
    pub start: *const f32,
    pub row: usize,
    pub k: usize,
}

impl Left for Strided {
    #[inline(always)]
    unsafe fn at(&self, row: usize, k: usize) -> f32 {
        // SAFETY: the caller's contract.
        unsafe { *self.start.add(row * self.row + k * self.k) }
    }
}

impl Right for Strided {
    #[inline(always)]
    unsafe fn row(&self, k: usize) -> *const f32 {
        // SAFETY: the caller's contract.
        unsafe { self.start.add(k * self.k) }
    }
}

/// Addressing by a table of offsets: of the rows of A, or of the rows of B along the sum.
#[derive(Clone, Copy)]
pub(crate) struct Listed<'a> {
    pub start: *const f32,
    pub offsets: &'a [usize],
}

impl Left for Listed<'_> {
    #[inline(always)]
    unsafe fn at(&self, row: usize, k: usize) -> f32 {
        // SAFETY: the caller's contract.
        unsafe { *self.start.add(*self.offsets.get_unchecked(row) + k) }
    }
}

impl Right for Listed<'_> {
    #[inline(always)]
    unsafe fn row(&self, k: usize) -> *const f32 {
        // SAFETY: the caller's contract.
        unsafe { self.start.add(*self.offsets.get_unchecked(k)) }
    }
}

/// The operands of a tile.
#[derive(Clone, Copy)]
pub(crate) struct Operands<A, B> {
    /// Length of the sum.
    pub k: usize,
    pub a: A,
    pub b: B,
    /// First element of C.
    pub c: *mut f32,
    /// Row stride of C.
    pub c_row: usize,
    /// Whether the product is added to C.
    pub add: bool,
}

/// `C[MR, NV·lanes] = A[MR, k]·B[k, NV·lanes]`, or `+=`.
///
/// # Safety
/// All elements of A, B and C that `o` describes may be read, and this thread alone may write C.
#[inline(always)]
pub(crate) unsafe fn fixed<S: Simd, A: Left, B: Right, const MR: usize, const NV: usize>(
    simd: S,
    o: Operands<A, B>,
) {
    let lanes = S::F32_LANES;
    let mut acc = [[simd.splat_f32s(0.0); NV]; MR];
    // SAFETY: the caller's contract; vectors are read and written unaligned.
    unsafe {
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
        // Added at the end, so that rounding errors grow with the number of blocks of a sum instead
        // of with its length.
        if o.add {
            for (m, row) in acc.iter_mut().enumerate() {
                for (v, acc) in row.iter_mut().enumerate() {
                    let c = o.c.add(m * o.c_row + v * lanes).cast::<S::f32s>();
                    *acc = simd.add_f32s(c.read_unaligned(), *acc);
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

/// [`fixed`] for a tile of `rows` (1, 2, 4, or 8 if [`tallest`] allows) by `vectors` (1 to
/// [`widest`]).
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
    // SAFETY: the caller's contract.
    unsafe {
        match (rows, vectors) {
            (8, 3) if tallest::<S>() == 8 => fixed::<S, A, B, 8, 3>(simd, o),
            (8, 2) if tallest::<S>() == 8 => fixed::<S, A, B, 8, 2>(simd, o),
            (8, 1) if tallest::<S>() == 8 => fixed::<S, A, B, 8, 1>(simd, o),
            (4, 3) if widest::<S>() == 3 => fixed::<S, A, B, 4, 3>(simd, o),
            (4, 2) => fixed::<S, A, B, 4, 2>(simd, o),
            (4, 1) => fixed::<S, A, B, 4, 1>(simd, o),
            (2, 3) if widest::<S>() == 3 => fixed::<S, A, B, 2, 3>(simd, o),
            (2, 2) => fixed::<S, A, B, 2, 2>(simd, o),
            (2, 1) => fixed::<S, A, B, 2, 1>(simd, o),
            (1, 3) if widest::<S>() == 3 => fixed::<S, A, B, 1, 3>(simd, o),
            (1, 2) => fixed::<S, A, B, 1, 2>(simd, o),
            (1, 1) => fixed::<S, A, B, 1, 1>(simd, o),
            _ => unreachable!("no tile of {rows} rows and {vectors} vectors"),
        }
    }
}

/// Splits `rows` rows into tiles of heights that [`tile`] supports: `(first row, height)`. The last
/// tile may extend beyond the last row.
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

/// Splits `vectors` vectors into tiles of at most `widest`: `(first vector, width)`. The split is
/// even: four vectors become two and two instead of three and one, which would be slower.
pub(crate) fn column_tiles(vectors: usize, widest: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = vectors.div_ceil(widest);
    (0..tiles).map(move |tile| {
        let (from, end) = (tile * vectors / tiles, (tile + 1) * vectors / tiles);
        (from, end - from)
    })
}
