//! PyTorch's stream of normal numbers on the CPU, so that a seed means the same start as in
//! programs that use PyTorch.

use burn::tensor::{Device, Tensor, TensorData, bf16, f16};
use std::f64::consts::PI;

/// Numbers of a block that are transformed together.
const BLOCK: usize = 16;

/// The random generator of `torch.Generator().manual_seed(seed)`, for `torch.randn` on the CPU: the
/// Mersenne Twister MT19937 (Matsumoto and Nishimura 1998) and the method of Box and Muller (1958).
///
/// The numbers are, bit for bit, those of PyTorch 2.15 on x86-64 with AVX2. Elsewhere PyTorch
/// computes the logarithm and the sine with other functions, so that single-precision numbers
/// differ by some 1e-6. They depend on the number of elements of a tensor and on its type: fewer
/// than 16 are drawn one at a time, in double precision.
///
/// ```
/// # use aigc_core::rng::TorchRng;
/// let mut rng = TorchRng::new(0);
/// // torch.randn(3, generator=torch.Generator().manual_seed(0))
/// assert_eq!(rng.normal_vec(3), [1.5409961, -0.2934289, -2.1787894]);
/// ```
#[derive(Clone, Debug)]
pub struct TorchRng {
    bits: MersenneTwister,
    /// The second number of a pair that was drawn one at a time.
    spare: Option<f64>,
}

impl TorchRng {
    /// The generator of a seed, of which PyTorch uses the lower 32 bits.
    pub fn new(seed: u64) -> Self {
        Self {
            bits: MersenneTwister::new(seed as u32),
            spare: None,
        }
    }

    /// `torch.randn(n)`.
    pub fn normal_vec(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return (0..n).map(|_| self.single() as f32).collect();
        }
        let mut values: Vec<f32> = (0..n).map(|_| self.uniform()).collect();
        for block in values.chunks_exact_mut(BLOCK) {
            box_muller(block);
        }
        if !n.is_multiple_of(BLOCK) {
            // The last block overlaps the one before, and is drawn anew.
            let last = &mut values[n - BLOCK..];
            last.iter_mut().for_each(|value| *value = self.uniform());
            box_muller(last);
        }
        values
    }

    /// `torch.randn(n, dtype=torch.float64)`.
    pub fn normal_vec_f64(&mut self, n: usize) -> Vec<f64> {
        if n < BLOCK {
            return (0..n).map(|_| self.single()).collect();
        }
        let mut values: Vec<f64> = (0..n).map(|_| self.uniform_f64()).collect();
        for block in values.chunks_exact_mut(BLOCK) {
            box_muller_f64(block);
        }
        if !n.is_multiple_of(BLOCK) {
            let last = &mut values[n - BLOCK..];
            last.iter_mut()
                .for_each(|value| *value = self.uniform_f64());
            box_muller_f64(last);
        }
        values
    }

    /// `torch.randn(n, dtype=torch.float16)`.
    pub fn normal_vec_f16(&mut self, n: usize) -> Vec<f16> {
        let values = self.normal_vec_for_half(n).into_iter();
        values.map(f16::from_f32).collect()
    }

    /// `torch.randn(n, dtype=torch.bfloat16)`.
    pub fn normal_vec_bf16(&mut self, n: usize) -> Vec<bf16> {
        let values = self.normal_vec_for_half(n).into_iter();
        values.map(bf16::from_f32).collect()
    }

    /// `torch.randn(shape)` on `device`.
    ///
    /// # Shapes
    /// - output: `shape`
    pub fn normal<const D: usize>(&mut self, shape: [usize; D], device: &Device) -> Tensor<D> {
        let values = self.normal_vec(shape.iter().product());
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// What is rounded to half precision. The numbers that the last block replaces are not drawn.
    fn normal_vec_for_half(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return self.normal_vec(n);
        }
        let mut values = self.normal_vec(n - n % BLOCK);
        if !n.is_multiple_of(BLOCK) {
            values.truncate(n - BLOCK);
            values.extend(self.normal_vec(BLOCK));
        }
        values
    }

    /// A uniform number on `[0, 1)`, of 24 bits.
    fn uniform(&mut self) -> f32 {
        (self.bits.next_u32() & 0xff_ffff) as f32 / 16_777_216.0
    }

    /// A uniform number on `[0, 1)`, of 53 bits.
    fn uniform_f64(&mut self) -> f64 {
        let (high, low) = (self.bits.next_u32(), self.bits.next_u32());
        let bits = u64::from(high) << 32 | u64::from(low);
        (bits & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }

    /// One normal number. Every other one comes from the pair of the one before.
    fn single(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (u1, u2) = (self.uniform_f64(), self.uniform_f64());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let angle = 2.0 * PI * u1;
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

/// From 16 uniform numbers to normal ones; each of the first eight makes a pair with one of the
/// others.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * ln(1.0 - *a)).sqrt();
        let (sin, cos) = sin_cos((2.0 * PI) as f32 * *b);
        // The mean is added to −0, too.
        (*a, *b) = (radius * cos + 0.0, radius * sin + 0.0);
    }
}

fn box_muller_f64(block: &mut [f64]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * (1.0 - *a).ln()).sqrt();
        let (sin, cos) = (2.0 * PI * *b).sin_cos();
        (*a, *b) = (radius * cos, radius * sin);
    }
}

/// `√½`.
const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// The logarithm of a normal number above 0 in single precision, by the polynomial of the Cephes
/// library (Moshier 1989) with fused products, rounded step by step as in PyTorch's kernel.
fn ln(x: f32) -> f32 {
    const COEFFICIENTS: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_84e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    // ln 2 in two parts.
    const LOW: f32 = -2.121_944_4e-4;
    const HIGH: f32 = 0.693_359_4;
    let bits = x.to_bits();
    let exponent = (bits >> 23) as i32 - 126;
    let mantissa = f32::from_bits(bits & 0x007f_ffff | 0x3f00_0000);
    let (x, exponent) = if mantissa < SQRT_HALF {
        (mantissa - 1.0 + mantissa, exponent - 1)
    } else {
        (mantissa - 1.0, exponent)
    };
    let (exponent, square) = (exponent as f32, x * x);
    let [first, others @ ..] = COEFFICIENTS;
    let y = others.iter().fold(first, |y, c| y.mul_add(x, *c)) * x;
    let y = y.mul_add(square, exponent * LOW);
    let y = (-square).mul_add(0.5, y);
    exponent.mul_add(HIGH, x + y)
}

/// Sine and cosine of a number from 0 to 2π, by the polynomials of the Cephes library as for
/// [`ln`].
fn sin_cos(x: f32) -> (f32, f32) {
    // π/4 in three parts.
    const PARTS: [f32; 3] = [0.785_156_25, 2.418_756_5e-4, 3.774_895e-8];
    // The octants are counted in pairs.
    let octant = ((x * (4.0 * std::f32::consts::FRAC_1_PI)) as u32 + 1) & !1;
    let turns = octant as f32;
    let x = PARTS.iter().fold(x, |x, part| turns.mul_add(-part, x));
    let z = x * x;
    let cos = 2.443_315_7e-5f32
        .mul_add(z, -1.388_731_6e-3)
        .mul_add(z, 4.166_664_6e-2)
        * z;
    let cos = cos.mul_add(z, -(z * 0.5)) + 1.0;
    let sin = (-1.951_529_6e-4f32)
        .mul_add(z, 8.332_161e-3)
        .mul_add(z, -1.666_665_5e-1)
        * z;
    let sin = sin.mul_add(x, x);
    match octant & 7 {
        0 => (sin, cos),
        2 => (cos, -sin),
        4 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

/// MT19937.
#[derive(Clone, Debug)]
struct MersenneTwister {
    state: Box<[u32; 624]>,
    /// Number of words of the state that were used.
    used: usize,
}

impl MersenneTwister {
    fn new(seed: u32) -> Self {
        let mut state = Box::new([seed; 624]);
        for i in 1..624 {
            let last = state[i - 1];
            state[i] = (last ^ last >> 30)
                .wrapping_mul(1_812_433_253)
                .wrapping_add(i as u32);
        }
        Self { state, used: 624 }
    }

    fn next_u32(&mut self) -> u32 {
        if self.used == 624 {
            self.twist();
        }
        let mut y = self.state[self.used];
        self.used += 1;
        y ^= y >> 11;
        y ^= y << 7 & 0x9d2c_5680;
        y ^= y << 15 & 0xefc6_0000;
        y ^ y >> 18
    }

    fn twist(&mut self) {
        for i in 0..624 {
            let y = self.state[i] & 0x8000_0000 | self.state[(i + 1) % 624] & 0x7fff_ffff;
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + 397) % 624] ^ y >> 1 ^ odd;
        }
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The 10,000th number of the reference implementation's default seed, which the C++ standard
    /// states for `std::mt19937`.
    #[test]
    fn twister_matches_its_standard() {
        let mut bits = MersenneTwister::new(5489);
        let last = (0..10_000).map(|_| bits.next_u32()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    /// Consecutive calls of `torch.randn` of PyTorch 2.15 with one generator: the first and the
    /// last numbers. The second number of a pair is kept over calls that draw blocks.
    #[test]
    fn draws_match_pytorch() {
        let mut rng = TorchRng::new(7);
        for (n, first, last) in [
            (3, 0xbe16_5174, 0x3f72_62e7),
            (16, 0xbe34_ac25, 0xbf63_328d),
            (17, 0xbf59_5213, 0x3fcf_e99a),
            (2, 0xbf8e_a2d3, 0x3fdb_6bb6),
            (33, 0x3e99_291f, 0xbe21_5e54),
        ] {
            let values = bits(&rng.normal_vec(n));
            assert_eq!((values[0], values[n - 1]), (first, last), "{n}");
        }
    }

    #[test]
    fn other_types_match_pytorch() {
        // The upper bits of a seed do not count.
        let seed = (1 << 32) + 7;
        let mut rng = TorchRng::new(seed);
        let halves: Vec<u16> = rng.normal_vec_f16(17).iter().map(|x| x.to_bits()).collect();
        assert_eq!(
            (&halves[..3], halves[16]),
            (&[0xba90, 0xbe55, 0xb531][..], 0xbd70)
        );
        assert_eq!(bits(&rng.normal_vec(1)), [0x401c_0b9a]);
        let mut rng = TorchRng::new(seed);
        let halves: Vec<u16> = rng
            .normal_vec_bf16(17)
            .iter()
            .map(|x| x.to_bits())
            .collect();
        assert_eq!(
            (&halves[..3], halves[16]),
            (&[0xbf52, 0xbfcb, 0xbea6][..], 0xbfae)
        );
        let doubles = TorchRng::new(7).normal_vec_f64(20);
        let expected = [0.06626753966449943, 0.04699155524392409, 0.6596523264462502];
        for (found, expected) in [doubles[0], doubles[1], doubles[19]].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-15, "{found}");
        }
    }

    /// The polynomials are as exact as single precision allows.
    #[test]
    fn polynomials_match_their_functions() {
        for i in 1..=10_000 {
            let x = i as f32 / 10_000.0;
            let error = (f64::from(ln(x)) - f64::from(x).ln()).abs();
            assert!(error < 2e-7 * f64::from(x).ln().abs().max(0.5), "{x}");
            let angle = x * std::f32::consts::TAU;
            let (sin, cos) = sin_cos(angle);
            let (exact_sin, exact_cos) = f64::from(angle).sin_cos();
            let error = (f64::from(sin) - exact_sin).abs() + (f64::from(cos) - exact_cos).abs();
            assert!(error < 4e-7, "{angle}");
        }
    }
}
