//! Windows of pieces, for training and for evaluation.

use crate::{
    model::ids,
    notation::{Cursor, Notation, Place},
};
use aigc_core::{
    Result,
    burn::tensor::{Device, Int, Tensor, TensorData},
    check::ensure_argument,
    data::Dataset,
    rng::Rng,
};

/// A part of a piece: inputs, the next token and its place for each, and which of them count.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    inputs: Vec<usize>,
    targets: Vec<i32>,
    places: Vec<Place>,
    weights: Vec<f32>,
}

impl Window {
    /// `context` tokens of a piece from `first` on, filled up with `pad` after its end. The first
    /// `known` of the next tokens do not count.
    fn new(
        tokens: &[u32],
        places: &[Place],
        first: usize,
        known: usize,
        context: usize,
        pad: u32,
    ) -> Self {
        let len = context.min(tokens.len() - 1 - first);
        let filled = |from: usize| {
            let part = tokens[from..from + len].iter().copied();
            part.chain(std::iter::repeat_n(pad, context - len))
        };
        let mut places = places[first..first + len].to_vec();
        places.resize(context, Place::default());
        let counts = |at: usize| f32::from(u8::from(at >= known && at < len));
        Self {
            inputs: filled(first).map(|token| token as usize).collect(),
            targets: filled(first + 1).map(|token| token as i32).collect(),
            places,
            weights: (0..context).map(counts).collect(),
        }
    }
}

/// Windows of the same length.
#[derive(Clone, Debug)]
pub(crate) struct NoteBatch {
    windows: Vec<Window>,
}

/// A batch on a device.
#[derive(Debug)]
pub(crate) struct NoteTensors {
    /// `[batch, time]`.
    pub(crate) inputs: Tensor<2, Int>,
    /// `[batch·time]`.
    pub(crate) targets: Tensor<1, Int>,
    /// 1 for targets that count, else 0, `[batch·time]`.
    pub(crate) weights: Tensor<1>,
    /// Sequence by sequence.
    pub(crate) places: Vec<Place>,
    /// Number of targets that count.
    pub(crate) count: usize,
}

impl NoteBatch {
    /// Combines windows, for a [`DataLoader`](aigc_core::data::DataLoader).
    pub(crate) fn collate(windows: Vec<Window>) -> Self {
        Self { windows }
    }

    /// The batch on `device`.
    pub(crate) fn to_tensors(&self, device: &Device) -> NoteTensors {
        let windows = self.windows.iter();
        let inputs: Vec<usize> = windows.clone().flat_map(|w| w.inputs.clone()).collect();
        let targets: Vec<i32> = windows.clone().flat_map(|w| w.targets.clone()).collect();
        let weights: Vec<f32> = windows.clone().flat_map(|w| w.weights.clone()).collect();
        let (size, count) = (weights.len(), weights.iter().filter(|w| **w > 0.0).count());
        NoteTensors {
            inputs: ids(&inputs, self.windows.len(), device),
            targets: Tensor::from_data(TensorData::new(targets, [size]), device),
            weights: Tensor::from_data(TensorData::new(weights, [size]), device),
            places: windows.flat_map(|w| w.places.clone()).collect(),
            count,
        }
    }
}

/// Tokens of a piece with start and end.
pub(crate) fn with_ends(notation: Notation, tokens: Vec<u32>) -> Vec<u32> {
    let start = notation.start_token();
    [vec![start], tokens, vec![start]].concat()
}

/// Whether a window may begin with each token.
fn boundaries(notation: Notation, tokens: &[u32]) -> Vec<bool> {
    let mut cursor = Cursor::new(notation, 0);
    let is_boundary = |(index, token): (usize, &u32)| {
        if index > 0 {
            cursor.push(*token);
        }
        index == 0 || cursor.is_boundary()
    };
    tokens.iter().enumerate().map(is_boundary).collect()
}

/// Training windows. In every epoch each piece is read once on average, at a random place and in a
/// random one of its transpositions; beginnings and ends are as frequent as what lies between.
#[derive(Debug)]
pub(crate) struct Windows {
    notation: Notation,
    /// For each piece its transpositions, all of the same length.
    pieces: Vec<Vec<Vec<u32>>>,
    /// The piece of each item.
    items: Vec<usize>,
    context: usize,
    seed: u64,
}

impl Windows {
    /// Windows of `context` tokens. A piece is a list of its transpositions, with start and end.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) without pieces.
    pub(crate) fn new(
        notation: Notation,
        pieces: Vec<Vec<Vec<u32>>>,
        context: usize,
        seed: u64,
    ) -> Result<Self> {
        let pieces: Vec<_> = pieces.into_iter().filter(|all| !all.is_empty()).collect();
        let count = pieces.len();
        ensure_argument(count > 0, "pieces", count, "at least one piece")?;
        let windows = |piece: &Vec<Vec<u32>>| (piece[0].len() - 1).div_ceil(context.max(1));
        let items = pieces.iter().enumerate();
        let items = items.flat_map(|(index, piece)| std::iter::repeat_n(index, windows(piece)));
        Ok(Self {
            notation,
            items: items.collect(),
            pieces,
            context,
            seed,
        })
    }
}

impl Dataset for Windows {
    type Item = Window;

    fn len(&self) -> usize {
        self.items.len()
    }

    fn get(&self, index: usize) -> Result<Window> {
        self.get_in_epoch(index, 0)
    }

    fn get_in_epoch(&self, index: usize, epoch: usize) -> Result<Window> {
        let drawn = (epoch * self.items.len() + index) as u64;
        let mut rng = Rng::stream(self.seed, "music/windows", drawn);
        let piece = &self.pieces[self.items[index]];
        let tokens = &piece[rng.random_index(piece.len())];
        // The last token is a target only.
        let last = (tokens.len() - 1).saturating_sub(self.context);
        let half = self.context / 2;
        let wanted = rng.random_index(last + 2 * half + 1);
        let wanted = wanted.saturating_sub(half).min(last);
        let boundaries = boundaries(self.notation, &tokens[..=wanted]);
        let first = boundaries.iter().rposition(|begins| *begins).unwrap_or(0);
        let places = self.notation.places(tokens);
        let pad = self.notation.start_token();
        let window = Window::new(tokens, &places, first, 0, self.context, pad);
        Ok(window)
    }
}

/// Windows that predict every token of the pieces once, ends excepted. They begin about `stride`
/// tokens apart: a token is predicted from all tokens before it, or from at least
/// `context − stride` of them but for those of a step.
pub(crate) fn evaluation_windows(
    notation: Notation,
    pieces: &[Vec<u32>],
    context: usize,
    stride: usize,
) -> Vec<Window> {
    let pad = notation.start_token();
    let mut windows = vec![];
    for piece in pieces {
        let tokens = &piece[..piece.len() - 1];
        let (places, boundaries) = (notation.places(tokens), boundaries(notation, tokens));
        let inputs = tokens.len() - 1;
        let (mut first, mut done) = (0, 0);
        while done < inputs {
            let known = done - first;
            windows.push(Window::new(tokens, &places, first, known, context, pad));
            done = inputs.min(first + context);
            // Not beyond what is predicted, and further than before.
            let wanted = done.min(first + stride.max(1));
            let next = (first + 1..=wanted).rev().find(|at| boundaries[*at]);
            first = next.unwrap_or(wanted);
        }
    }
    windows
}
