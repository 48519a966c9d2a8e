//! The most probable monotonic alignment of tokens and frames.

use crate::parallel::in_parallel;
use aigc_core::{Error, Result};
use burn::tensor::{Device, Int, Tensor, TensorData};

/// Number of cells below which threads cost more than they save.
const CELLS_FOR_THREADS: usize = 1 << 15;

/// The alignments that [`monotonic_alignment`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Alignments {
    /// Number of frames of each token of each item. Padding has none.
    pub durations: Vec<Vec<usize>>,
    /// Sum of the values on each item's path.
    pub sums: Vec<f64>,
    frames: usize,
}

impl Alignments {
    /// 1 where a frame belongs to a token, 0 elsewhere.
    ///
    /// # Shapes
    /// - output: `[batch, tokens, frames]`
    pub fn path(&self, device: &Device) -> Tensor<3, Int> {
        let (batch, frames) = (self.durations.len(), self.frames);
        let tokens = self.durations.first().map_or(0, Vec::len);
        let mut path = vec![0i32; batch * tokens * frames];
        for (item, durations) in self.durations.iter().enumerate() {
            let mut start = 0;
            for (token, duration) in durations.iter().enumerate() {
                let row = (item * tokens + token) * frames + start;
                path[row..row + duration].fill(1);
                start += duration;
            }
        }
        Tensor::from_data(TensorData::new(path, [batch, tokens, frames]), device)
    }
}

/// Monotonic alignment search (Kim et al. 2020, <https://arxiv.org/abs/2005.11129>, algorithm 1):
/// of all ways to give every token, in order, at least one frame and every frame one token, that
/// with the largest sum of values. Of several with this sum, that whose last token begins first is
/// taken, then that whose last token but one does, and so on. The items of a batch are shared by
/// threads; no gradients flow.
///
/// # Shapes
/// - values: `[batch, tokens, frames]`, such as log-likelihoods of the frames given the tokens
/// - token_lengths and frame_lengths: `[batch]`; what lies behind them is ignored
///
/// # Errors
/// [`Error::InvalidArgument`] naming the item if there is not one length for every item, a length
/// is 0 or longer than the axis, an item has more tokens than frames, or its sum is not a number.
pub fn monotonic_alignment(
    values: Tensor<3>,
    token_lengths: &[usize],
    frame_lengths: &[usize],
) -> Result<Alignments> {
    let [batch, tokens, frames] = values.dims();
    for (name, lengths, most) in [
        ("token_lengths", token_lengths, tokens),
        ("frame_lengths", frame_lengths, frames),
    ] {
        if lengths.len() != batch {
            let expected = format!("{batch}, one for each item");
            return Err(Error::argument(name, lengths.len(), expected));
        }
        let wrong = lengths.iter().position(|len| !(1..=most).contains(len));
        if let Some(item) = wrong {
            let value = format!("{} for item {item}", lengths[item]);
            return Err(Error::argument(name, value, format!("1 to {most}")));
        }
    }
    let pairs = || token_lengths.iter().zip(frame_lengths);
    if let Some(item) = pairs().position(|(tokens, frames)| tokens > frames) {
        let (tokens, frames) = (token_lengths[item], frame_lengths[item]);
        let value = format!("{tokens} for item {item}");
        let expected = format!("at most {frames}, its number of frames");
        return Err(Error::argument("token_lengths", value, expected));
    }
    let data: Vec<f32> = values.into_data().iter::<f32>().collect();
    let align = |item: usize| {
        let whole = &data[item * tokens * frames..(item + 1) * tokens * frames];
        best_path(whole, frames, token_lengths[item], frame_lengths[item])
    };
    let mut all = Alignments {
        durations: Vec::with_capacity(batch),
        sums: Vec::with_capacity(batch),
        frames,
    };
    let paths: Vec<_> = match data.len() < CELLS_FOR_THREADS {
        true => (0..batch).map(align).collect(),
        false => in_parallel(batch, align),
    };
    for (item, (mut durations, sum)) in paths.into_iter().enumerate() {
        if sum.is_nan() {
            let value = format!("not a number on the path of item {item}");
            return Err(Error::argument("values", value, "numbers"));
        }
        durations.resize(tokens, 0);
        all.durations.push(durations);
        all.sums.push(sum);
    }
    Ok(all)
}

/// Durations of the best path, and its sum. Rows of `values` have `stride` elements.
fn best_path(values: &[f32], stride: usize, tokens: usize, frames: usize) -> (Vec<usize>, f64) {
    // Token `i` can have the frames `i..=i + slack` only: the others need one frame each. So the
    // best sums of a token are kept for those.
    let slack = frames - tokens;
    let width = slack + 1;
    let mut best = vec![f64::NEG_INFINITY; width];
    // Whether the token begins at the frame, on the best path to the two of them.
    let mut begins = vec![false; tokens * width];
    for token in 0..tokens {
        let row = &values[token * stride + token..token * stride + token + width];
        let begins = &mut begins[token * width..(token + 1) * width];
        let mut stay = f64::NEG_INFINITY;
        for (offset, value) in row.iter().enumerate() {
            // The token before ends one frame earlier, which has the same place in its row.
            let step = match token {
                0 if offset == 0 => 0.0,
                0 => f64::NEG_INFINITY,
                _ => best[offset],
            };
            begins[offset] = offset == 0 || (token > 0 && step > stay);
            stay = f64::from(*value) + if begins[offset] { step } else { stay };
            best[offset] = stay;
        }
    }
    let (mut durations, mut offset) = (vec![0; tokens], slack);
    for token in (0..tokens).rev() {
        durations[token] = 1;
        while !begins[token * width + offset] {
            durations[token] += 1;
            offset -= 1;
        }
    }
    (durations, best[slack])
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::rng::Rng;

    /// All ways to divide `frames` among `tokens`.
    fn divisions(tokens: usize, frames: usize) -> Vec<Vec<usize>> {
        if tokens == 1 {
            return vec![vec![frames]];
        }
        (1..=frames + 1 - tokens)
            .flat_map(|first| {
                divisions(tokens - 1, frames - first)
                    .into_iter()
                    .map(move |rest| [vec![first], rest].concat())
            })
            .collect()
    }

    #[test]
    fn no_other_path_has_a_larger_sum() {
        let mut rng = Rng::new(1);
        for (tokens, frames) in [(1, 1), (1, 6), (4, 4), (3, 8), (5, 9)] {
            let (rows, stride) = (tokens + 1, frames + 2);
            let values = rng.normal_vec(2 * rows * stride);
            let device = Device::flex();
            let tensor = Tensor::<1>::from_floats(&values[..], &device);
            let tensor = tensor.reshape([2, rows, stride]);
            let found = monotonic_alignment(tensor, &[tokens; 2], &[frames; 2]).unwrap();
            for item in 0..2 {
                let sum = |durations: &[usize]| {
                    let (mut at, mut sum) = (0, 0.0);
                    for (token, duration) in durations.iter().enumerate() {
                        for frame in at..at + duration {
                            let row = (item * rows + token) * stride;
                            sum += f64::from(values[row + frame]);
                        }
                        at += duration;
                    }
                    sum
                };
                let best = divisions(tokens, frames)
                    .iter()
                    .map(|path| sum(path))
                    .fold(f64::NEG_INFINITY, f64::max);
                assert!((found.sums[item] - best).abs() < 1e-9);
                assert!((sum(&found.durations[item][..tokens]) - best).abs() < 1e-9);
                assert_eq!(found.durations[item][tokens], 0);
            }
            let path = found.path(&device);
            assert_eq!(path.dims(), [2, rows, stride]);
            assert_eq!(
                path.into_data().iter::<i64>().sum::<i64>(),
                2 * frames as i64
            );
        }
    }

    /// Of alignments with the same sum, that whose later tokens are longer is found.
    #[test]
    fn later_tokens_get_the_frames_of_ties() {
        let values = Tensor::<3>::zeros([1, 3, 6], &Device::flex());
        let found = monotonic_alignment(values, &[3], &[6]).unwrap();
        assert_eq!(found.durations, [[1, 1, 4]]);
    }

    /// Enough cells for threads; every item is that of the search alone.
    #[test]
    fn threads_do_not_change_results() {
        let (batch, tokens, frames) = (7, 40, 200);
        let values: Tensor<3> = Rng::new(2).normal([batch, tokens, frames], &Device::flex());
        let lengths: Vec<usize> = (0..batch).map(|item| tokens - 3 * item).collect();
        let frames: Vec<usize> = (0..batch).map(|item| frames - 20 * item).collect();
        let all = monotonic_alignment(values.clone(), &lengths, &frames).unwrap();
        for item in 0..batch {
            let one = values.clone().narrow(0, item, 1);
            let one = monotonic_alignment(one, &lengths[item..=item], &frames[item..=item]);
            assert_eq!(all.durations[item], one.unwrap().durations[0]);
            assert_eq!(all.durations[item].iter().sum::<usize>(), frames[item]);
        }
    }

    #[test]
    fn impossible_lengths_are_named() {
        let device = Device::flex();
        let align = |tokens: &[usize], frames: &[usize]| {
            let values = Tensor::<3>::zeros([2, 3, 4], &device);
            monotonic_alignment(values, tokens, frames)
                .unwrap_err()
                .to_string()
        };
        assert!(align(&[3], &[4, 4]).contains("`token_lengths` is 1, expected 2"));
        assert!(align(&[3, 0], &[4, 4]).contains("`token_lengths` is 0 for item 1"));
        assert!(align(&[3, 3], &[5, 4]).contains("`frame_lengths` is 5 for item 0"));
        assert!(align(&[3, 3], &[4, 2]).contains("3 for item 1, expected at most 2"));
        let values = Tensor::<3>::full([1, 1, 1], f32::NAN, &device);
        let error = monotonic_alignment(values, &[1], &[1]).unwrap_err();
        assert!(error.to_string().contains("not a number"));
    }
}
