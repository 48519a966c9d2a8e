//! The encoder.

use super::{
    blocks::{Bias, Block, Layers},
    config::T5Config,
};
use crate::layers::Embedding;
use aigc_core::{Result, nn::RmsNorm};
use burn::{
    module::Module,
    tensor::{Bool, Device, Int, Tensor},
};

impl T5Config {
    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<T5EncoderModel> {
        let (activation, gated) = self.validate()?;
        let layers = Layers {
            config: self,
            activation,
            gated,
            device,
        };
        Ok(T5EncoderModel {
            shared: layers.embedding(self.vocab_size, self.d_model, 1.0),
            encoder: Encoder {
                block: (0..self.num_layers).map(|i| layers.block(i)).collect(),
                final_layer_norm: layers.norm(),
            },
            config: self.clone(),
        })
    }
}

/// Blocks and the norm behind them.
#[derive(Module, Debug)]
struct Encoder {
    block: Vec<Block>,
    final_layer_norm: RmsNorm,
}

/// The encoder of T5 or UMT5: a vector for each token of a text. It has no absolute positions, so
/// that texts may have any length.
///
/// Directories of whole T5 models open too; the report lists the decoder's tensors as unused.
///
/// ```no_run
/// # use aigc_core::device::device;
/// # use aigc_encoders::{t5::T5EncoderModel, tokenizer::T5Tokenizer};
/// # use burn::tensor::Tensor;
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let model = T5EncoderModel::from_pretrained("flux/text_encoder_2", &device)?;
/// let tokenizer = T5Tokenizer::from_pretrained("flux/tokenizer_2")?;
/// let ids = tokenizer.encode("a cat wearing a hat")?;
/// let ids = Tensor::<1, burn::tensor::Int>::from_data(&ids[..], &device).unsqueeze();
/// let states = model.forward(ids, None); // [1, tokens, 4096]
/// # Ok(()) }
/// ```
#[derive(Module, Debug)]
pub struct T5EncoderModel {
    shared: Embedding,
    encoder: Encoder,
    #[module(skip)]
    config: T5Config,
}

impl T5EncoderModel {
    /// Configuration of the model.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// The device of the weights.
    pub(super) fn device(&self) -> Device {
        self.shared.weight.val().device()
    }

    /// The vectors of the tokens, behind the final norm.
    ///
    /// # Shapes
    /// - input_ids: `[batch, tokens]`
    /// - attention_mask: `[batch, tokens]`, true for tokens of the text and false for padding, to
    ///   which no token attends; without a mask all tokens attend to all
    /// - output: `[batch, tokens, d_model]`
    ///
    /// # Panics
    /// If a token is not below `vocab_size`, there are no tokens, or the mask has another shape.
    pub fn forward(
        &self,
        input_ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
    ) -> Tensor<3> {
        self.run(input_ids, attention_mask, |_| {})
    }

    /// All hidden states: the embeddings, the output of each block but the last, and what
    /// [`forward`](Self::forward) returns.
    ///
    /// # Shapes
    /// - inputs: as [`forward`](Self::forward)
    /// - output: `num_layers + 1` tensors `[batch, tokens, d_model]`
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_hidden_states(
        &self,
        input_ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
    ) -> Vec<Tensor<3>> {
        let mut states = vec![];
        let last = self.run(input_ids, attention_mask, |state| {
            states.push(state.clone())
        });
        // What enters the final norm is not among them.
        states.pop();
        states.push(last);
        states
    }

    /// `record` receives the embeddings and the output of each block.
    fn run(
        &self,
        input_ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
        mut record: impl FnMut(&Tensor<3>),
    ) -> Tensor<3> {
        let [batch, tokens] = input_ids.dims();
        let max_distance = self.config.relative_attention_max_distance;
        let padding = attention_mask.map(|mask| {
            assert_eq!(mask.dims(), [batch, tokens], "attention mask");
            // The least number, not minus infinity: a text without tokens remains finite.
            let padding = mask.bool_not().float() * f32::MIN;
            padding.reshape([batch, 1, 1, tokens])
        });
        let mut position = None;
        let mut x = self.shared.forward(input_ids);
        record(&x);
        for block in &self.encoder.block {
            // A block without a table has the bias of the one before.
            position = block.position_bias(max_distance, tokens).or(position);
            let bias = Bias {
                position: position
                    .clone()
                    .expect("the first block has a table of positions"),
                padding: padding.clone(),
            };
            x = block.forward(x, &bias);
            record(&x);
        }
        self.encoder.final_layer_norm.forward(x)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::t5::T5ModelType;
    use aigc_core::{
        rng::InitWeights,
        testing::{assert_close, values},
    };

    fn tiny() -> T5EncoderModel {
        let config = T5Config {
            vocab_size: 20,
            d_model: 12,
            d_kv: 5,
            d_ff: 10,
            num_layers: 2,
            num_heads: 3,
            feed_forward_proj: "gated-gelu".into(),
            ..T5Config::default()
        };
        config.init(&Device::flex()).unwrap().init_weights(1)
    }

    fn ids(tokens: &[i32]) -> Tensor<2, Int> {
        Tensor::<1, Int>::from_data(tokens, &Device::flex()).unsqueeze()
    }

    #[test]
    fn masked_tokens_do_not_affect_others() {
        let model = tiny();
        let alone = values(model.forward(ids(&[3, 4, 5]), None));
        let mask =
            Tensor::<2, Bool>::from_data([[true, true, true, false, false]], &Device::flex());
        let padded = model.forward(ids(&[3, 4, 5, 0, 0]), Some(mask));
        assert_close(&values(padded.narrow(1, 0, 3)), &alone, 1e-5);
        let unmasked = model.forward(ids(&[3, 4, 5, 0, 0]), None).narrow(1, 0, 3);
        let apart = values(unmasked)
            .iter()
            .zip(&alone)
            .any(|(a, b)| (a - b).abs() > 1e-3);
        assert!(apart, "padding without a mask counts");
    }

    /// A table in every block, not one for all.
    #[test]
    fn blocks_of_umt5_have_tables_of_their_own() {
        let config = T5Config {
            model_type: T5ModelType::Umt5,
            ..tiny().config
        };
        let device = Device::flex();
        let mut model = config.init(&device).unwrap().init_weights(1);
        let tables = |model: &T5EncoderModel| {
            let mut tables = vec![];
            for block in &model.encoder.block {
                tables.push(values(block.position_bias(128, 3).unwrap()));
            }
            tables
        };
        let before = tables(&model);
        assert!(before.len() == 2 && before[0] != before[1]);
        let whole = values(model.forward(ids(&[3, 4, 5]), None));
        // With the second block of a T5, the bias is that of the first table.
        let plain = T5Config {
            model_type: T5ModelType::T5,
            ..model.config.clone()
        };
        model.encoder.block[1] = plain.init(&device).unwrap().encoder.block.remove(1);
        assert!(model.encoder.block[1].position_bias(128, 3).is_none());
        let other = values(model.forward(ids(&[3, 4, 5]), None));
        let apart = whole.iter().zip(&other).any(|(a, b)| (a - b).abs() > 1e-4);
        assert!(apart && other.iter().all(|x| x.is_finite()));
        // Files of T5 lack the tables that UMT5 needs.
        let dir = tempfile::tempdir().unwrap();
        tiny().save_pretrained(dir.path()).unwrap();
        let path = dir.path().join("config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"t5\"", "\"umt5\"")).unwrap();
        let message = T5EncoderModel::from_pretrained(dir.path(), &device).unwrap_err();
        let name = "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight";
        assert!(message.to_string().contains(name), "{message}");
    }

    #[test]
    fn hidden_states_end_behind_the_final_norm() {
        let model = tiny();
        let states = model.forward_hidden_states(ids(&[3, 4]), None);
        let whole = values(model.forward(ids(&[3, 4]), None));
        assert_eq!(states.len(), 3);
        assert_eq!(values(states[2].clone()), whole);
        assert_eq!(
            values(states[0].clone()),
            values(model.shared.forward(ids(&[3, 4])))
        );
    }

    #[test]
    fn a_row_without_tokens_stays_finite() {
        let mask = Tensor::<2, Bool>::from_data([[false, false]], &Device::flex());
        let states = values(tiny().forward(ids(&[1, 2]), Some(mask)));
        assert!(states.iter().all(|value| value.is_finite()));
    }
}
