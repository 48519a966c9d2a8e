//! Codes with conditions, as training takes them.

use super::{ConditionInputs, DelayPattern};
use aigc_core::{Error, Result, check::ensure_argument, encoder::TextEmbeddings};
use burn::tensor::{Device, Int, Tensor, TensorData};

/// The codes of a sound, and its condition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CodesItem {
    /// The codes of all frames, for each codebook.
    pub codes: Vec<Vec<u32>>,
    /// The class of each kind; empty for none.
    pub classes: Vec<u32>,
    /// A vector of a text encoder for each token; empty for none.
    pub text: Vec<Vec<f32>>,
}

impl CodesItem {
    /// Codes without a condition, one list for each codebook.
    pub fn new(codes: Vec<Vec<u32>>) -> Self {
        Self {
            codes,
            ..Self::default()
        }
    }

    /// The codes of one sound, `[codebooks, frames]`, as codecs return them.
    pub fn from_tensor(codes: Tensor<2, Int>) -> Self {
        let frames = codes.dims()[1];
        let values: Vec<u32> = codes.into_data().iter::<i64>().map(|x| x as u32).collect();
        let rows = values.chunks(frames.max(1));
        Self::new(rows.map(<[u32]>::to_vec).collect())
    }

    /// With classes, one of each kind.
    pub fn with_classes(self, classes: Vec<u32>) -> Self {
        Self { classes, ..self }
    }

    /// With the states of a text, a vector for each token.
    pub fn with_text(self, text: Vec<Vec<f32>>) -> Self {
        Self { text, ..self }
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.codes.first().map_or(0, Vec::len)
    }
}

/// A batch of codes, which may have different numbers of frames.
#[derive(Clone, Debug, PartialEq)]
pub struct CodesBatch {
    items: Vec<CodesItem>,
}

/// Inputs and targets of training.
pub(super) struct Places {
    /// Tokens before each step, `[batch, codebooks, steps]`.
    pub(super) inputs: Tensor<3, Int>,
    /// The code of each place; 0 where it is empty, `[batch·codebooks·steps]`.
    pub(super) targets: Tensor<1, Int>,
    /// 1 where a place holds a code, `[batch·codebooks·steps]`.
    pub(super) weights: Tensor<1>,
    /// Number of places of one codebook that hold codes.
    pub(super) count: usize,
}

impl CodesBatch {
    /// Collates items, for a [`DataLoader`](aigc_core::data::DataLoader). Their codes are checked
    /// against a model when it is trained.
    pub fn collate(items: Vec<CodesItem>) -> Self {
        Self { items }
    }

    /// The items.
    pub fn items(&self) -> &[CodesItem] {
        &self.items
    }

    /// Number of items.
    pub fn batch_size(&self) -> usize {
        self.items.len()
    }

    /// Frames of the longest item.
    pub fn longest(&self) -> usize {
        let frames = self.items.iter().map(CodesItem::frames);
        frames.max().unwrap_or(0)
    }

    /// Fails unless all items have as many codebooks of equal length, at least one frame, and codes
    /// of the vocabulary.
    fn check(&self, codebooks: usize, vocab_size: usize) -> Result<()> {
        ensure_argument(
            !self.items.is_empty(),
            "batch",
            "empty",
            "at least one item",
        )?;
        for item in &self.items {
            let frames = item.frames();
            let fits = item.codes.iter().all(|stream| stream.len() == frames);
            let lengths: Vec<usize> = item.codes.iter().map(Vec::len).collect();
            ensure_argument(
                fits && frames > 0 && item.codes.len() == codebooks,
                "codes",
                format!("of lengths {lengths:?}"),
                &format!("{codebooks} codebooks of one length, at least one frame"),
            )?;
            let mut all = item.codes.iter().flatten();
            if let Some(code) = all.find(|code| **code as usize >= vocab_size) {
                let expected = format!("below {vocab_size}, the model's vocab_size");
                return Err(Error::argument("codes", code, expected));
            }
        }
        Ok(())
    }

    /// The codes, shifted by the delays.
    pub(super) fn places(
        &self,
        pattern: &DelayPattern,
        vocab_size: usize,
        pad: u32,
        device: &Device,
    ) -> Result<Places> {
        let codebooks = pattern.num_codebooks();
        self.check(codebooks, vocab_size)?;
        let steps = pattern.steps(self.longest());
        let size = self.items.len() * codebooks * steps;
        let mut inputs = Vec::with_capacity(size);
        let (mut targets, mut weights) = (Vec::with_capacity(size), Vec::with_capacity(size));
        for item in &self.items {
            let frames = item.frames();
            for (index, stream) in item.codes.iter().enumerate() {
                let mut before = pad;
                for step in 0..steps {
                    let place = pattern.frame_at(index, step, frames);
                    let code = place.map(|frame| stream[frame]);
                    inputs.push(before as i32);
                    targets.push(code.unwrap_or(0) as i32);
                    weights.push(if code.is_some() { 1f32 } else { 0.0 });
                    before = code.unwrap_or(pad);
                }
            }
        }
        let shape = [self.items.len(), codebooks, steps];
        Ok(Places {
            inputs: Tensor::from_data(TensorData::new(inputs, shape), device),
            targets: Tensor::from_data(TensorData::new(targets, [size]), device),
            weights: Tensor::from_data(TensorData::new(weights, [size]), device),
            count: self.items.iter().map(CodesItem::frames).sum(),
        })
    }

    /// The conditions of the items; shorter texts are padded.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if only some items have a text or classes, or vectors of texts
    /// have different widths.
    pub fn condition_inputs(&self, device: &Device) -> Result<ConditionInputs> {
        let some = |argument: &str, count: usize| {
            let all = self.items.len();
            let expected = format!("given for all {all} items or for none");
            let found = format!("given for {count} items");
            ensure_argument(count == 0 || count == all, argument, found, &expected)?;
            Ok::<_, Error>(count > 0)
        };
        let count = |has: fn(&CodesItem) -> bool| {
            let items = self.items.iter();
            items.filter(|item| has(item)).count()
        };
        let mut inputs = ConditionInputs::default();
        if some("classes", count(|item| !item.classes.is_empty()))? {
            let classes = self.items.iter().map(|item| item.classes.clone());
            inputs.classes = classes.collect();
        }
        if some("text", count(|item| !item.text.is_empty()))? {
            inputs.text = Some(self.text(device)?);
        }
        Ok(inputs)
    }

    fn text(&self, device: &Device) -> Result<TextEmbeddings> {
        let tokens = self.items.iter().map(|item| item.text.len());
        let tokens = tokens.max().unwrap_or(0);
        let mut vectors = self.items.iter().flat_map(|item| &item.text);
        let width = vectors.clone().next().map_or(0, Vec::len);
        if let Some(other) = vectors.find(|vector| vector.len() != width) {
            let expected = format!("vectors of one width, {width}");
            let found = format!("of width {}", other.len());
            return Err(Error::argument("text", found, expected));
        }
        let (mut values, mut mask) = (vec![], vec![]);
        for item in &self.items {
            values.extend(item.text.iter().flatten());
            let padding = tokens - item.text.len();
            values.resize(values.len() + padding * width, 0f32);
            mask.extend((0..tokens).map(|at| at < item.text.len()));
        }
        let rows = self.items.len();
        let states = TensorData::new(values, [rows, tokens, width]);
        let mask = TensorData::new(mask, [rows, tokens]);
        let states = TextEmbeddings::new(Tensor::from_data(states, device));
        Ok(states.with_attention_mask(Tensor::from_data(mask, device)))
    }
}
