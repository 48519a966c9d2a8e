//! Contrastive training of a pair of encoders.

use super::{ClipModel, ClipOutput};
use aigc_core::{
    Result,
    check::ensure_argument,
    ops,
    train::{LossOutput, Objective, StepContext},
};
use burn::tensor::{Bool, Device, Int, Tensor};
use std::marker::PhantomData;

/// Limit on the logarithm of the scale of the logits: that of 100.
pub const MAX_LOGIT_SCALE: f64 = 4.605_170_185_988_092;

/// A batch of images with one caption each, on the host.
pub trait CaptionedImages: Send + 'static {
    /// The images, `[batch, channels, height, width]`, normalised as the vision encoder takes them.
    fn pixel_values(&self, device: &Device) -> Tensor<4>;

    /// The tokens of the captions, `[batch, tokens]`.
    fn input_ids(&self, device: &Device) -> Tensor<2, Int>;

    /// Which tokens are no padding, `[batch, tokens]`; by default all are attended to.
    fn attention_mask(&self, device: &Device) -> Option<Tensor<2, Bool>> {
        let _ = device;
        None
    }
}

/// The symmetric InfoNCE loss (van den Oord et al. 2018, <https://arxiv.org/abs/1807.03748>;
/// Radford et al. 2021, figure 3): the mean cross-entropy of the right image for every text and of
/// the right text for every image.
///
/// # Shapes
/// - logits_per_text: `[batch, batch]`; pair `i` has the logit `[i, i]`
/// - output: `[1]`
///
/// # Panics
/// If the logits are not square.
pub fn contrastive_loss(logits_per_text: Tensor<2>) -> Tensor<1> {
    let [batch, images] = logits_per_text.dims();
    assert_eq!(batch, images, "one image for each text");
    let targets = Tensor::<1, Int>::arange(0..batch as i64, &logits_per_text.device());
    let texts = ops::cross_entropy(logits_per_text.clone(), targets.clone()).mean();
    let images = ops::cross_entropy(logits_per_text.transpose(), targets).mean();
    (texts + images) * 0.5
}

/// The objective of a [`ClipModel`]: the [`contrastive_loss`] of a batch of captioned images. All
/// other captions of a batch count as wrong, so equal captions in one batch teach a contradiction.
/// After every update, the scale of the logits is limited to 100.
///
/// Metrics: `accuracy`, how many of the texts are nearest to their images within the batch, and
/// `scale`, the scale of the logits.
#[derive(Debug)]
pub struct ContrastiveObjective<B>(PhantomData<fn() -> B>);

impl<B> ContrastiveObjective<B> {
    /// An objective; it has no settings.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<B> Default for ContrastiveObjective<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: CaptionedImages> Objective for ContrastiveObjective<B> {
    type Model = ClipModel;
    type Batch = B;

    fn losses(
        &mut self,
        model: &ClipModel,
        batch: &B,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let device = &context.device;
        let output = compare_batch(model, batch.input_ids(device), batch, device)?;
        let logits = output.logits_per_text;
        let scale = model.logit_scale.val().detach().exp();
        let accuracy = accuracy(logits.clone().detach());
        Ok(LossOutput::new(contrastive_loss(logits))
            .with_metric("accuracy", accuracy)
            .with_metric("scale", scale))
    }

    fn after_update(&mut self, mut model: ClipModel, _phase: usize) -> Result<ClipModel> {
        if model.logit_scale.val().is_require_grad() {
            model.logit_scale = model.logit_scale.map(|scale| {
                let limited = scale.without_autodiff().clamp_max(MAX_LOGIT_SCALE);
                Tensor::from_inner(limited).require_grad()
            });
        }
        Ok(model)
    }
}

/// Compares the images of a batch with its captions, whose tokens are `ids`, or fails if the batch
/// does not fit the model.
pub(super) fn compare_batch<B: CaptionedImages>(
    model: &ClipModel,
    ids: Tensor<2, Int>,
    batch: &B,
    device: &Device,
) -> Result<ClipOutput> {
    let (pixels, mask) = (batch.pixel_values(device), batch.attention_mask(device));
    check_batch(
        model,
        ids.dims(),
        pixels.dims(),
        mask.as_ref().map(Tensor::dims),
    )?;
    Ok(model.forward(ids, pixels, mask))
}

/// Fails unless tokens, images and mask of these shapes fit the model.
fn check_batch(
    model: &ClipModel,
    [texts, tokens]: [usize; 2],
    [images, channels, height, width]: [usize; 4],
    mask: Option<[usize; 2]>,
) -> Result<()> {
    let (text, vision) = (&model.config().text_config, &model.config().vision_config);
    let (positions, side) = (text.max_position_embeddings, vision.image_size);
    ensure_argument(
        texts == images && texts > 0,
        "input_ids",
        format!("{texts} texts"),
        &format!("{images}, the number of images, and not 0"),
    )?;
    ensure_argument(
        (1..=positions).contains(&tokens),
        "input_ids",
        format!("{tokens} tokens"),
        &format!("1 to {positions}, the model's max_position_embeddings"),
    )?;
    let (shape, expected) = ([channels, height, width], [vision.num_channels, side, side]);
    ensure_argument(
        shape == expected,
        "pixel_values",
        format!("{shape:?}"),
        &format!("{expected:?}, as the model takes them"),
    )?;
    let (mask, expected) = (mask.unwrap_or([texts, tokens]), [texts, tokens]);
    ensure_argument(
        mask == expected,
        "attention_mask",
        format!("{mask:?}"),
        &format!("{expected:?}, the shape of input_ids"),
    )
}

/// How many rows have their largest logit on the diagonal, `[1]`.
fn accuracy(logits: Tensor<2>) -> Tensor<1> {
    let targets = Tensor::<1, Int>::arange(0..logits.dims()[0] as i64, &logits.device());
    let nearest = logits.argmax(1).squeeze_dim::<1>(1);
    nearest.equal(targets).float().mean()
}

#[cfg(all(test, feature = "flex"))]
pub(super) mod tests {
    use super::*;
    use crate::{
        clip::{
            ClipConfig, ClipTextConfig, ClipVisionConfig, RetrievalAccuracy, pair::compare,
            retrieval_accuracy,
        },
        tokenizer::ClipTokenizer,
    };
    use aigc_core::{
        data::{DataLoader, DataLoaderConfig, InMemory},
        rng::{InitWeights, Rng},
        testing::{assert_close, flex, temp_run, values},
        train::{Event, Trainer, TrainerConfig},
    };
    use burn::tensor::TensorData;
    use std::{cell::RefCell, rc::Rc};

    /// By hand: two pairs with the logits a and b, where the loss of a row is
    /// ln(1 + e^(wrong − right)).
    #[test]
    fn loss_matches_its_formula() {
        let logits = Tensor::from_data([[2.0, 1.0], [0.5, 3.0]], &flex());
        let row = |right: f64, wrong: f64| (1.0 + (wrong - right).exp()).ln();
        let texts = row(2.0, 1.0) + row(3.0, 0.5);
        let images = row(2.0, 0.5) + row(3.0, 1.0);
        let expected = ((texts + images) / 4.0) as f32;
        assert_close(&values(contrastive_loss(logits)), &[expected], 1e-6);
    }

    /// Numbers of `tests/reference/clip_contrastive.py`.
    #[test]
    fn loss_and_gradients_match_pytorch() {
        let device = flex().autodiff();
        let leaf = |salt: usize| {
            let value = |i: usize| ((7 * i + 3 * salt) % 11) as f32 / 5.0 - 1.0;
            let data = TensorData::new((0..12).map(value).collect::<Vec<_>>(), [3, 4]);
            Tensor::<2>::from_data(data, &device).require_grad()
        };
        let (text, image) = (leaf(1), leaf(2));
        let scale = Tensor::<1>::from_floats([0.7], &device).require_grad();
        let output = compare(text.clone(), image.clone(), scale.clone());
        let loss = contrastive_loss(output.logits_per_text);
        let grads = loss.backward();
        assert_close(&values(loss), &[LOSS], 1e-6);
        assert_close(&values(text.grad(&grads).unwrap()), &TEXT, 1e-6);
        assert_close(&values(image.grad(&grads).unwrap()), &IMAGE, 1e-6);
        assert_close(&values(scale.grad(&grads).unwrap()), &[SCALE], 1e-6);
    }

    const LOSS: f32 = 1.8700162;
    const SCALE: f32 = 1.1200921;
    const TEXT: [f32; 12] = [
        -0.15028087,
        0.015742683,
        -0.49019932,
        -0.036_974_72,
        0.21345623,
        -0.31192945,
        0.40636678,
        0.25721407,
        -0.02985524,
        0.026526572,
        0.008_686_367,
        -0.042_702_44,
    ];
    const IMAGE: [f32; 12] = [
        0.099_784,
        -0.564_833_7,
        -0.448_571_3,
        0.20142141,
        -0.075_369_15,
        0.028766677,
        0.41568621,
        -0.0055819185,
        0.20392491,
        0.22509636,
        -0.027774935,
        0.181_217_6,
    ];

    /// Images of one colour and a caption that names it.
    #[derive(Clone)]
    struct Coloured {
        pixels: Vec<f32>,
        ids: Vec<u32>,
    }

    struct Batch(Vec<Coloured>);

    impl CaptionedImages for Batch {
        fn pixel_values(&self, device: &Device) -> Tensor<4> {
            let pixels: Vec<f32> = self.0.iter().flat_map(|item| item.pixels.clone()).collect();
            Tensor::from_data(TensorData::new(pixels, [self.0.len(), 3, 8, 8]), device)
        }

        fn input_ids(&self, device: &Device) -> Tensor<2, Int> {
            let ids: Vec<i32> = self
                .0
                .iter()
                .flat_map(|item| item.ids.iter().map(|id| *id as i32))
                .collect();
            let shape = [self.0.len(), self.0[0].ids.len()];
            Tensor::from_data(TensorData::new(ids, shape), device)
        }
    }

    const SHADES: [&str; 8] = [
        "black", "red", "green", "yellow", "blue", "magenta", "cyan", "white",
    ];

    /// Every shade once, in order, with noise.
    fn shades(tokenizer: &ClipTokenizer, seed: u64) -> Vec<Coloured> {
        let mut rng = Rng::new(seed);
        let captions = tokenizer.encode_padded(&SHADES).unwrap();
        captions
            .ids
            .into_iter()
            .enumerate()
            .map(|(shade, ids)| {
                let channel = |channel: usize| if shade >> channel & 1 == 1 { 1.0 } else { -1.0 };
                let pixels = (0..3 * 64)
                    .zip(rng.normal_vec(3 * 64))
                    .map(|(at, noise)| channel(at / 64) + 0.3 * noise);
                Coloured {
                    pixels: pixels.collect(),
                    ids,
                }
            })
            .collect()
    }

    fn pair(tokenizer: &ClipTokenizer) -> ClipModel {
        let config = ClipConfig {
            text_config: ClipTextConfig {
                vocab_size: tokenizer.vocab_size(),
                hidden_size: 16,
                intermediate_size: 32,
                num_hidden_layers: 1,
                num_attention_heads: 2,
                max_position_embeddings: 4,
                eos_token_id: tokenizer.eos_token_id(),
                ..ClipTextConfig::default()
            },
            vision_config: ClipVisionConfig {
                hidden_size: 16,
                intermediate_size: 32,
                num_hidden_layers: 1,
                num_attention_heads: 2,
                image_size: 8,
                patch_size: 4,
                ..ClipVisionConfig::default()
            },
            projection_dim: 8,
            ..ClipConfig::default()
        };
        config.init(&flex()).unwrap().init_weights(1)
    }

    fn accuracy_of(model: &ClipModel, tokenizer: &ClipTokenizer) -> RetrievalAccuracy {
        let batches = (10..20).map(|seed| Ok(Batch(shades(tokenizer, seed))));
        retrieval_accuracy(model, batches, 8).unwrap()
    }

    #[test]
    fn pair_learns_which_caption_belongs_to_an_image() {
        let tokenizer = ClipTokenizer::from_words(SHADES).unwrap();
        let tokenizer = tokenizer.with_max_length(4).unwrap();
        let model = pair(&tokenizer);
        let before = accuracy_of(&model, &tokenizer);
        assert!(before.caption < 0.5, "{before:?}");

        let run = temp_run().unwrap();
        let items: Vec<Vec<Coloured>> = (0..4).map(|seed| shades(&tokenizer, seed)).collect();
        let config = DataLoaderConfig {
            batch_size: 1,
            num_workers: 0,
            ..DataLoaderConfig::default()
        };
        let loader = DataLoader::new(InMemory(items), |sets| Batch(sets.concat()), config);
        let losses = Rc::new(RefCell::new(vec![]));
        let seen = losses.clone();
        let config = TrainerConfig {
            learning_rate: 1e-2,
            save_steps: 0,
            ..TrainerConfig::new(60)
        };
        let trained = Trainer::new(config)
            .with_model_config(model.config())
            .unwrap()
            .with_callback(move |event: &Event<'_>| {
                if let Event::Step(report) = event {
                    seen.borrow_mut().push(report.losses[0].1);
                }
            })
            .fit(ContrastiveObjective::new(), model, &loader.unwrap(), &run)
            .unwrap();
        let losses = losses.borrow();
        let chance = (SHADES.len() as f64).ln();
        assert!(losses[0] > 0.5 * chance, "{}", losses[0]);
        assert!(losses[59] < 0.1 * chance, "{}", losses[59]);
        let after = accuracy_of(&trained.model, &tokenizer);
        assert!(after.caption > 0.95 && after.image > 0.95, "{after:?}");

        // The run's final model opens as a pair.
        let opened = ClipModel::from_pretrained(run.final_dir(), &flex()).unwrap();
        assert_eq!(opened.config(), trained.model.config());
        let again = accuracy_of(&opened, &tokenizer);
        assert_eq!(again, after);
    }

    #[test]
    fn scale_is_limited_to_a_hundred() {
        let tokenizer = ClipTokenizer::from_words(SHADES).unwrap();
        let device = flex().autodiff();
        let config = ClipConfig {
            logit_scale_init_value: 7.0,
            ..pair(&tokenizer).config().clone()
        };
        let model = config.init(&device).unwrap().init_weights(1);
        let mut objective = ContrastiveObjective::<Batch>::new();
        let model = objective.after_update(model, 0).unwrap();
        assert!(model.logit_scale.val().is_require_grad());
        let scale = values(model.logit_scale.val().exp());
        assert_close(&scale, &[100.0], 1e-3);
    }

    #[test]
    fn batches_that_do_not_fit_are_errors() {
        let tokenizer = ClipTokenizer::from_words(SHADES).unwrap();
        let tokenizer = tokenizer.with_max_length(4).unwrap();
        let model = pair(&tokenizer);
        let message = |ids: [usize; 2], pixels: [usize; 4], mask: [usize; 2]| {
            let checked = check_batch(&model, ids, pixels, Some(mask));
            checked.unwrap_err().to_string()
        };
        let images = [2, 3, 8, 8];
        assert!(message([2, 4], [3, 3, 8, 8], [2, 4]).contains("2 texts, expected 3"));
        assert!(message([2, 5], images, [2, 5]).contains("5 tokens, expected 1 to 4"));
        assert!(message([2, 0], images, [2, 0]).contains("0 tokens, expected 1 to 4"));
        let pixels = message([2, 4], [2, 3, 9, 8], [2, 4]);
        assert!(pixels.contains("`pixel_values` is [3, 9, 8], expected [3, 8, 8]"));
        let mask = message([2, 4], images, [2, 3]);
        assert!(mask.contains("`attention_mask` is [2, 3], expected [2, 4]"));
        assert!(check_batch(&model, [2, 4], images, None).is_ok());
    }
}
