//! The conditions of a batch, some of them dropped: class labels, class embeddings and encoder
//! hidden states.

use super::DiffusionObjective;
use crate::denoiser::{Conditioning, Denoiser, real_classes};
use aigc_core::{
    Error, Result,
    data::{SampleBatch, label_tensor},
    train::StepContext,
};
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::rc::Rc;

/// Vectors of a batch: encoder hidden states, or class embeddings.
pub(super) type Encode<B, const K: usize> = dyn Fn(&B, &Device) -> Result<Tensor<K>>;

/// Token ids of the prompts of a batch.
pub(super) type Tokenize<B> = dyn Fn(&B) -> Result<Vec<Vec<u32>>>;

/// Where encoder hidden states come from.
pub(super) struct Encoder<B> {
    pub(super) encode: Rc<Encode<B, 3>>,
    /// `[1, tokens, width]`: those of dropped conditions.
    pub(super) null: Option<Tensor<3>>,
}

impl<N: Denoiser<D>, B: SampleBatch<D>, const D: usize> DiffusionObjective<N, B, D> {
    /// The conditions of a batch, some of them dropped.
    pub(super) fn conditions(
        &self,
        network: &N,
        batch: &B,
        context: &mut StepContext,
    ) -> Result<Conditioning<D>> {
        let mut condition = Conditioning::default();
        let width = network.cross_attention_dim();
        let class_width = network.class_embedding_dim();
        let real = real_classes(network);
        let tokens = network.takes_input_ids();
        if real.is_none() && class_width.is_none() && width.is_none() && !tokens {
            return Ok(condition);
        }
        let labels = match (real, batch.labels()) {
            (None, _) => None,
            (Some(_), None) => {
                return Err(Error::argument(
                    "labels",
                    "missing",
                    "the class of every sample, for a class-conditional network",
                ));
            }
            (Some(real), Some(labels)) => {
                if let Some(label) = labels.iter().find(|label| **label as usize >= real) {
                    let expected = format!("below {real}, the network's classes");
                    return Err(Error::argument("labels", label, expected));
                }
                Some(labels)
            }
        };
        let dropout = self.config.conditioning_dropout;
        let mut drop = |_: usize| {
            dropout > 0.0 && f64::from(context.rng.uniform_vec(1, 0.0, 1.0)[0]) < dropout
        };
        let dropped: Vec<bool> = (0..batch.len()).map(&mut drop).collect();
        if let Some(labels) = labels {
            let label = |(label, dropped): (&u32, &bool)| match network.null_class() {
                Some(null) if *dropped => null,
                _ => *label,
            };
            let labels: Vec<u32> = labels.iter().zip(&dropped).map(label).collect();
            condition.class_labels = Some(label_tensor(&labels, &context.device));
        }
        if let Some(width) = class_width {
            let vectors = self.class_embeddings(width, batch, &dropped, &context.device)?;
            condition.class_embeddings = Some(vectors.autodiff());
        }
        if let Some(width) = width {
            let states = self.hidden_states(width, batch, &dropped, &context.device)?;
            condition.encoder_hidden_states = Some(states.autodiff());
        }
        if tokens {
            let ids = self.input_ids(batch, &dropped, &context.device)?;
            condition.input_ids = Some(ids);
        }
        Ok(condition)
    }

    /// Token ids of a batch, some of them replaced by the null ones.
    fn input_ids(&self, batch: &B, dropped: &[bool], device: &Device) -> Result<Tensor<2, Int>> {
        let Some((tokenize, null)) = &self.tokenizer else {
            let expected = "token ids: call `with_input_ids`";
            return Err(Error::argument("input_ids", "missing", expected));
        };
        let prompts = tokenize(batch)?;
        let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
        if lengths != vec![null.len(); batch.len()] || null.is_empty() {
            let expected = format!("{} prompts of {} tokens", batch.len(), null.len());
            return Err(Error::argument(
                "input_ids",
                format!("{lengths:?}"),
                expected,
            ));
        }
        let rows = prompts.iter().zip(dropped);
        let rows = rows.flat_map(|(ids, dropped)| if *dropped { null } else { ids });
        let ids: Vec<i32> = rows.map(|id| *id as i32).collect();
        let data = TensorData::new(ids, [batch.len(), null.len()]);
        Ok(Tensor::from_data(data, device))
    }

    /// Class embeddings of a batch, some of them replaced by zeros.
    fn class_embeddings(
        &self,
        width: usize,
        batch: &B,
        dropped: &[bool],
        device: &Device,
    ) -> Result<Tensor<2>> {
        let Some(embed) = &self.class_embeddings else {
            return Err(Error::argument(
                "class_embeddings",
                "missing",
                format!("vectors of width {width}: call `with_class_embeddings`"),
            ));
        };
        let vectors = embed(batch, &device.clone().without_autodiff())?;
        if vectors.dims() != [batch.len(), width] {
            let value = format!("{:?}", vectors.dims());
            let expected = format!("[{}, {width}]", batch.len());
            return Err(Error::argument("class_embeddings", value, expected));
        }
        let null = vectors.clone().narrow(0, 0, 1).zeros_like();
        Ok(replace(vectors, null, dropped))
    }

    /// Encoder hidden states of a batch, some of them replaced by the null ones.
    fn hidden_states(
        &self,
        width: usize,
        batch: &B,
        dropped: &[bool],
        device: &Device,
    ) -> Result<Tensor<3>> {
        let Some(encoder) = &self.encoder else {
            return Err(Error::argument(
                "encoder_hidden_states",
                "missing",
                format!("vectors of width {width}: call `with_encoder_hidden_states`"),
            ));
        };
        let n = batch.len();
        let states = (encoder.encode)(batch, &device.clone().without_autodiff())?;
        let [rows, tokens, found] = states.dims();
        if rows != n || found != width || tokens == 0 {
            let value = format!("{:?}", states.dims());
            let expected = format!("[{n}, tokens, {width}]");
            return Err(Error::argument("encoder_hidden_states", value, expected));
        }
        let null = match &encoder.null {
            _ if self.config.conditioning_dropout == 0.0 => return Ok(states),
            Some(null) if null.dims() == [1, tokens, width] => null,
            null => {
                let value = null
                    .as_ref()
                    .map_or("missing".into(), |null| format!("{:?}", null.dims()));
                let expected = format!("[1, {tokens}, {width}], with conditioning_dropout");
                return Err(Error::argument("null hidden states", value, expected));
            }
        };
        Ok(replace(states, null.clone(), dropped))
    }
}

/// The vectors of a batch, those that are dropped replaced by `null`, one row.
fn replace<const K: usize>(of: Tensor<K>, null: Tensor<K>, dropped: &[bool]) -> Tensor<K> {
    // The null ones stand behind those of the batch.
    let null_row = dropped.len() as u32;
    let index = |(i, dropped): (usize, &bool)| if *dropped { null_row } else { i as u32 };
    let index: Vec<u32> = dropped.iter().enumerate().map(index).collect();
    let index = label_tensor(&index, &of.device());
    Tensor::cat(vec![of, null], 0).select(0, index)
}
