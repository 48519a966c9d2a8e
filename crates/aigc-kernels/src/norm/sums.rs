//! Sums of vectors and of channels.

use crate::{
    memory::{check_len, volume},
    simd::arch,
    threads::{Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// Sum of `values`, or of their squared deviations from `centre`.
#[inline(always)]
pub(super) fn sums<S: Simd>(s: S, values: &[f32], centre: Option<f32>) -> f32 {
    let (body, tail) = S::as_simd_f32s(values);
    let (fours, rest) = pulp::as_arrays::<4, _>(body);
    let mut acc = [s.splat_f32s(0.0); 4];
    let c = s.splat_f32s(centre.unwrap_or(0.0));
    match centre {
        None => {
            for four in fours {
                for (acc, x) in acc.iter_mut().zip(four) {
                    *acc = s.add_f32s(*acc, *x);
                }
            }
            for x in rest {
                acc[0] = s.add_f32s(acc[0], *x);
            }
        }
        Some(_) => {
            for four in fours {
                for (acc, x) in acc.iter_mut().zip(four) {
                    let d = s.sub_f32s(*x, c);
                    *acc = s.mul_add_e_f32s(d, d, *acc);
                }
            }
            for x in rest {
                let d = s.sub_f32s(*x, c);
                acc[0] = s.mul_add_e_f32s(d, d, acc[0]);
            }
        }
    }
    let total =
        s.reduce_sum_f32s(s.add_f32s(s.add_f32s(acc[0], acc[1]), s.add_f32s(acc[2], acc[3])));
    let tail = tail
        .iter()
        .map(|x| centre.map_or(*x, |c| (x - c) * (x - c)));
    total + tail.sum::<f32>()
}

/// Sum of every channel of `x` `[batch, channels, len]`: the gradient of a bias per channel.
///
/// # Panics
/// If `x` does not have that shape.
pub fn channel_sums(x: &[f32], [batch, channels, len]: [usize; 3]) -> Vec<f32> {
    struct Sum<'a>(&'a [f32]);
    impl WithSimd for Sum<'_> {
        type Output = f32;
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) -> f32 {
            sums(s, self.0, None)
        }
    }
    check_len("channel_sums: x", x.len(), volume(&[batch, channels, len]));
    let mut totals = vec![0.0; channels];
    {
        let totals = Shared::new(&mut totals);
        let per_part = channels.div_ceil(16).max(1);
        for_each(channels.div_ceil(per_part), x.len(), |part| {
            let (first, count) = (part * per_part, per_part.min(channels - part * per_part));
            // SAFETY: every part has its own channels.
            for (total, channel) in unsafe { totals.range(first, count) }
                .iter_mut()
                .zip(first..)
            {
                let of = |image: usize| &x[(image * channels + channel) * len..][..len];
                *total = (0..batch)
                    .map(|image| arch().dispatch(Sum(of(image))))
                    .sum();
            }
        });
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_panics;

    #[test]
    fn channel_sums_rejects_other_sizes() {
        let values = [0.5; 32];
        assert_panics("channel_sums: x has 13 elements, expected 12", || {
            channel_sums(&values[..13], [1, 3, 4])
        });
        assert_panics("overflow", || channel_sums(&[], [usize::MAX, 3, 0]));
    }
}
