//! The text encoder.

use super::{
    ClipTextConfig,
    config::EncoderConfig,
    files::{self, clip_methods},
    layers::Encoder,
};
use crate::layers::Embedding;
use aigc_core::{
    Error, Result,
    nn::{LayerNorm, Linear},
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader},
};
use burn::{
    module::Module,
    tensor::{Bool, Device, Int, Tensor},
};
use std::path::Path;

/// In configurations with this `eos_token_id`, the end of a prompt is its highest token.
const UNSET_EOS: u32 = 2;

#[derive(Module, Debug)]
pub(super) struct TextEmbeddings {
    pub(super) token_embedding: Embedding,
    position_embedding: Embedding,
}

/// The text encoder without a projection; in files `text_model`.
#[derive(Module, Debug)]
pub(super) struct TextTransformer {
    pub(super) embeddings: TextEmbeddings,
    encoder: Encoder,
    final_layer_norm: LayerNorm,
}

impl TextTransformer {
    pub(super) fn new(config: &ClipTextConfig, device: &Device) -> Self {
        let shared = config.shared();
        let (width, std) = (config.hidden_size, 0.02 * config.initializer_factor);
        let table = |count| Embedding::new([count, width], std, device);
        Self {
            embeddings: TextEmbeddings {
                token_embedding: table(config.vocab_size),
                position_embedding: table(config.max_position_embeddings),
            },
            encoder: shared.encoder(device),
            final_layer_norm: shared.norm(device),
        }
    }

    /// All hidden states, the last of them normalised, and that of the end of the prompt.
    pub(super) fn forward(
        &self,
        eos_token_id: u32,
        input_ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
    ) -> ClipTextOutput {
        let TextEmbeddings {
            token_embedding,
            position_embedding,
        } = &self.embeddings;
        let [batch, tokens] = input_ids.dims();
        let [positions, width] = position_embedding.weight.lazy_shape().dims();
        assert!(
            tokens <= positions,
            "{tokens} tokens exceed the {positions} positions of the model"
        );
        if let Some(mask) = &attention_mask {
            assert_eq!(mask.dims(), [batch, tokens], "attention mask");
        }
        let embedded =
            token_embedding.forward(input_ids.clone()) + position_embedding.first(tokens);
        let hidden_states = self
            .encoder
            .forward(embedded, attention_mask.map(hidden_keys), true);
        let last = hidden_states[hidden_states.len() - 1].clone();
        let last_hidden_state = self.final_layer_norm.forward(last);
        let end = end_positions(input_ids, eos_token_id)
            .unsqueeze_dim::<3>(2)
            .expand([batch, 1, width]);
        let pooler_output = last_hidden_state.clone().gather(1, end).squeeze_dim(1);
        ClipTextOutput {
            last_hidden_state,
            pooler_output,
            text_embeds: None,
            hidden_states,
        }
    }
}

/// The keys that padding hides from each query, `[batch, queries, keys]`, for a mask that is false
/// at padding. Nothing is hidden from queries before the first token: without any key, attention is
/// undefined.
fn hidden_keys(attention_mask: Tensor<2, Bool>) -> Tensor<3, Bool> {
    let [batch, tokens] = attention_mask.dims();
    let shape = [batch, tokens, tokens];
    let before = attention_mask.clone().int().cumsum(1).equal_elem(0);
    let is_padding = attention_mask.bool_not().unsqueeze_dim::<3>(1);
    let sees_tokens = before.bool_not().unsqueeze_dim::<3>(2);
    is_padding.expand(shape).bool_and(sees_tokens.expand(shape))
}

/// Position of the first token that ends each prompt, `[batch, 1]`; 0 if there is none.
fn end_positions(input_ids: Tensor<2, Int>, eos_token_id: u32) -> Tensor<2, Int> {
    let [_, tokens] = input_ids.dims();
    let is_end = match eos_token_id {
        UNSET_EOS => {
            let highest = input_ids.clone().max_dim(1);
            input_ids.clone().equal(highest.expand(input_ids.dims()))
        }
        id => input_ids.clone().equal_elem(id),
    };
    // Distinct scores, because backends differ in which of equal numbers is the maximum: earlier
    // tokens have higher ones, and tokens that end the prompt higher ones than all others.
    let n = tokens as i64;
    let earlier: Tensor<2, Int> = Tensor::arange(0..n, &input_ids.device()).unsqueeze();
    let scores = is_end.int() * n - earlier;
    scores.argmax(1)
}

/// Output of a [`ClipTextModel`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClipTextOutput {
    /// The output of the last layer after the final layer norm, `[batch, tokens, hidden_size]`.
    pub last_hidden_state: Tensor<3>,
    /// The last hidden state of the token that ends the prompt, `[batch, hidden_size]`.
    pub pooler_output: Tensor<2>,
    /// The projected pooled output, `[batch, projection_dim]`, if the model has a projection.
    pub text_embeds: Option<Tensor<2>>,
    /// The embeddings, and the output of every layer, without the final layer norm.
    pub hidden_states: Vec<Tensor<3>>,
}

/// CLIP's text encoder (Radford et al. 2021, <https://arxiv.org/abs/2103.00020>): a transformer
/// with causal attention. transformers' `CLIPTextModel`, and `CLIPTextModelWithProjection` if the
/// configuration has a projection.
#[derive(Module, Debug)]
pub struct ClipTextModel {
    pub(super) text_model: TextTransformer,
    text_projection: Option<Linear>,
    #[module(skip)]
    pub(super) config: ClipTextConfig,
}

impl ClipTextConfig {
    /// Creates the network on `device`, with the initial weights of transformers.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<ClipTextModel> {
        self.validate()?;
        Ok(ClipTextModel {
            text_model: TextTransformer::new(self, device),
            text_projection: self.shared().projection(device),
            config: self.clone(),
        })
    }
}

impl ClipTextModel {
    /// Configuration of the network.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// Encodes prompts.
    ///
    /// # Shapes
    /// - input_ids: `[batch, tokens]`
    /// - attention_mask: `[batch, tokens]`, false at padding; `None` if all tokens are attended to,
    ///   as Stable Diffusion does
    ///
    /// # Panics
    /// If there are more than `max_position_embeddings` tokens, one is not below `vocab_size`, or
    /// the mask has another shape.
    pub fn forward(
        &self,
        input_ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
    ) -> ClipTextOutput {
        let eos_token_id = self.config.eos_token_id;
        let output = self
            .text_model
            .forward(eos_token_id, input_ids, attention_mask);
        let project = |projection: &Linear| projection.forward(output.pooler_output.clone());
        ClipTextOutput {
            text_embeds: self.text_projection.as_ref().map(project),
            ..output
        }
    }

    /// The hidden states of `output` without the last `skip` layers (clip skip), after the final
    /// layer norm if `final_norm` is set. Stable Diffusion 1 and 2 use them with the norm; XL and 3
    /// use those without the last layer and without the norm.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the model has fewer layers.
    pub fn without_last_layers(
        &self,
        output: &ClipTextOutput,
        skip: usize,
        final_norm: bool,
    ) -> Result<Tensor<3>> {
        let layers = self.config.num_hidden_layers;
        let state = layers
            .checked_sub(skip)
            .and_then(|index| output.hidden_states.get(index));
        let Some(state) = state else {
            let expected = format!("at most {layers}, the layers of the model");
            return Err(Error::argument("clip_skip", skip, expected));
        };
        Ok(match final_norm {
            true => self.text_model.final_layer_norm.forward(state.clone()),
            false => state.clone(),
        })
    }

    /// Loads weights. A projection in the files is loaded even if the configuration has none.
    fn load(
        mut config: Loaded<ClipTextConfig>,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        config.value.with_projection |= files::has(files, "text_projection.weight");
        let created = config.try_map(|config| config.init(device))?;
        files::load(files, created, dtype, |key| {
            files::optional_prefix(key, "text_model.")
        })
    }

    fn to_json(&self) -> String {
        self.config.to_json()
    }

    clip_methods!(ClipTextConfig);
}

#[cfg(all(test, feature = "flex"))]
pub(super) mod tests {
    use super::*;
    use aigc_core::{
        params::{ParamVisitor, visit_params},
        rng::InitWeights,
        testing::{assert_close, flex, values},
    };
    use burn::{
        module::Param,
        tensor::{DType, Gradients},
    };

    pub(in crate::clip) fn tiny(eos_token_id: u32) -> ClipTextModel {
        let config = ClipTextConfig {
            vocab_size: 20,
            hidden_size: 8,
            intermediate_size: 12,
            projection_dim: 6,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            max_position_embeddings: 5,
            eos_token_id,
            with_projection: true,
            ..ClipTextConfig::default()
        };
        config.init(&flex()).unwrap().init_weights(1)
    }

    pub(in crate::clip) fn ids(rows: [[i32; 5]; 2]) -> Tensor<2, Int> {
        Tensor::from_data(rows, &flex())
    }

    #[test]
    fn ends_of_prompts_are_the_first_ones() {
        let positions = |eos| -> Vec<i64> {
            let rows = ids([[1, 9, 4, 9, 9], [7, 3, 8, 3, 0]]);
            end_positions(rows, eos).into_data().iter().collect()
        };
        assert_eq!(positions(9), [1, 0]);
        assert_eq!(positions(3), [0, 1]);
        assert_eq!(positions(2), [1, 2]);
    }

    /// Tokens of padding do not matter, wherever they are.
    #[test]
    fn masked_tokens_have_no_effect() {
        let model = tiny(9);
        let mask = [
            [true, true, true, false, false],
            [false, true, true, true, false],
        ];
        let mask = || Some(Tensor::from_data(mask, &flex()));
        let run = |padding: i32| {
            let rows = ids([[1, 5, 9, padding, padding], [padding, 1, 5, 9, padding]]);
            model.forward(rows, mask()).last_hidden_state
        };
        let (a, b) = (values(run(3)), values(run(17)));
        let differs = |row: usize, token: usize| {
            let at = (row * 5 + token) * 8;
            a[at..at + 8] != b[at..at + 8]
        };
        for token in 0..5 {
            assert_eq!(differs(0, token), token > 2, "token {token}");
            assert_eq!(differs(1, token), token == 0 || token == 4, "token {token}");
        }
        assert!(a.iter().all(|value| value.is_finite()));
    }

    /// Collects the paths of parameters whose gradient is missing or zero.
    struct WithoutGradient<'a> {
        grads: &'a Gradients,
        paths: Vec<String>,
    }

    impl ParamVisitor for WithoutGradient<'_> {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            let grad = param.val().grad(self.grads).map(values);
            if grad.is_none_or(|grad| grad.iter().all(|value| *value == 0.0)) {
                self.paths.push(path.into());
            }
        }
    }

    /// Every parameter has a gradient, but rows of tokens that do not occur.
    #[test]
    fn gradients_reach_all_parameters() {
        let device = flex().autodiff();
        let config = tiny(9).config().clone();
        let model = config.init(&device).unwrap().init_weights(1);
        let rows = Tensor::from_data([[1, 5, 9, 9, 9]], &device);
        let output = model.forward(rows, None);
        let grads = output.text_embeds.unwrap().square().sum().backward();
        let mut without = WithoutGradient {
            grads: &grads,
            paths: vec![],
        };
        visit_params(&model, &mut without);
        // The same number is added to all scores of a query, so the softmax does not see it.
        without.paths.retain(|path| !path.ends_with("k_proj.bias"));
        assert_eq!(without.paths, [""; 0]);
        let table = &model.text_model.embeddings.token_embedding.weight;
        let grad = values(table.val().grad(&grads).unwrap());
        for (token, row) in grad.chunks_exact(8).enumerate() {
            let is_zero = row.iter().all(|value| *value == 0.0);
            assert_eq!(is_zero, ![1, 5, 9].contains(&token), "token {token}");
        }
    }

    #[test]
    fn weights_may_stay_in_half_precision() {
        let model = tiny(9);
        let dir = tempfile::tempdir().unwrap();
        model.save_pretrained(dir.path()).unwrap();
        let options = OpenOptions::default().with_dtype(WeightDtype::F16);
        let half = ClipTextModel::from_pretrained_with(dir.path(), &options, &flex()).unwrap();
        assert_eq!(half.token_embeddings().dtype(), DType::F16);
        let embeds = |model: &ClipTextModel, last: i32| {
            let output = model.forward(ids([[1, 5, last, 9, 9]; 2]), None);
            values(output.text_embeds.unwrap())
        };
        assert_close(&embeds(&half.value, 7), &embeds(&model, 7), 1e-2);
        let row = Tensor::<2>::ones([1, 8], &flex());
        let (half, _) = half
            .into_inner()
            .with_extra_embeddings(row.clone())
            .unwrap();
        let (model, _) = model.with_extra_embeddings(row).unwrap();
        assert_eq!(half.token_embeddings().dtype(), DType::F16);
        assert_close(&embeds(&half, 20), &embeds(&model, 20), 1e-2);
    }

    #[test]
    fn skipping_more_layers_than_there_are_is_an_error() {
        let model = tiny(9);
        let output = model.forward(ids([[1, 5, 9, 9, 9]; 2]), None);
        let last = model.without_last_layers(&output, 0, true).unwrap();
        assert_close(
            &values(last),
            &values(output.last_hidden_state.clone()),
            0.0,
        );
        let message = model.without_last_layers(&output, 3, false).unwrap_err();
        assert!(
            message.to_string().contains("`clip_skip` is 3"),
            "{message}"
        );
    }
}
