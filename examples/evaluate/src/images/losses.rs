//! The loss of each image under a model.

use super::{
    run::ImageModel,
    set::{BATCH, ImageSet},
};
use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::{Device, Int, Tensor, TensorData},
    data::ValueRange,
    rng::Rng,
};
use aigc_diffusion::{Conditioning, Denoiser, Pipeline, Scheduler};
use aigc_examples::Progress;
use aigc_vae::{AnyVae, ConditionKind, Vae, elbo};

/// Steps of the plan whose noise levels a denoising loss is a mean over.
const STEPS: usize = 8;

/// A loss for each image.
#[derive(Debug)]
pub(crate) struct Losses {
    pub(crate) values: Vec<f64>,
    /// What the loss is, for the report.
    pub(crate) name: String,
}

/// The losses of all images of a set. Noise depends on the place of an image alone: two sets are
/// compared with the same draws.
///
/// # Errors
/// [`Error::Unsupported`] for models without a loss of an image; [`Error::Cancelled`].
pub(crate) fn losses(
    model: &ImageModel,
    images: &ImageSet,
    device: &Device,
    stop: &CancelToken,
) -> Result<Losses> {
    let progress = Progress::new("losses of images", images.len(), stop);
    let unsupported = |hint: &str| {
        let hint = hint.to_string();
        Error::unsupported("a loss for each image", model.family(), hint)
    };
    match model {
        ImageModel::Vae(vae) if vae.condition_kind() == ConditionKind::default() => Ok(Losses {
            values: of_vae(vae, images, device, &progress)?,
            name: "the negative ELBO at the posterior's mean, in nats".into(),
        }),
        ImageModel::Diffusion(pipeline) => {
            let network = &pipeline.network;
            let has_others = network.needs_from_pipeline().is_some()
                || network.takes_input_ids()
                || network.extra_input_channels() > 0
                || network.cross_attention_dim().is_some()
                || network.class_embedding_dim().is_some();
            if has_others {
                return Err(unsupported(
                    "it is computed for networks with classes or without conditions",
                ));
            }
            Ok(Losses {
                values: denoising(pipeline, images, device, &progress)?,
                name: format!(
                    "the mean squared error of the predicted noise at the levels of a sampler of \
                     {STEPS} steps, with the same noise for both sets"
                ),
            })
        }
        _ => Err(unsupported(
            "it is computed for autoencoders without conditions and for diffusion models",
        )),
    }
}

/// The negative ELBO at the mean of the posterior.
fn of_vae(
    vae: &AnyVae,
    images: &ImageSet,
    device: &Device,
    progress: &Progress,
) -> Result<Vec<f64>> {
    let mut all = Vec::with_capacity(images.len());
    for batch in images.batches() {
        let batch = batch?;
        let x = batch.to_tensor(device);
        let posterior = vae.encode(x.clone());
        let likelihood = vae.decode(posterior.mean.clone());
        let terms = elbo(x, &posterior, &likelihood);
        let losses = (terms.kl - terms.log_likelihood).to_data();
        all.extend(losses.iter::<f64>());
        progress.add(batch.len())?;
    }
    Ok(all)
}

/// The error of the predicted noise, averaged over the levels of a plan (the loss that Carlini et
/// al. 2023, <https://arxiv.org/abs/2301.13188>, section 5.1, compare).
fn denoising(
    pipeline: &Pipeline,
    images: &ImageSet,
    device: &Device,
    progress: &Progress,
) -> Result<Vec<f64>> {
    let plan = pipeline.scheduler.plan(STEPS)?;
    let values = images.shape().numel();
    let rows: Vec<usize> = (0..images.len()).collect();
    let mut all = Vec::with_capacity(rows.len());
    for rows in rows.chunks(BATCH) {
        let x0 = ValueRange::Unit.normalize(images.tensor(rows, device));
        let condition = Conditioning {
            class_labels: classes(pipeline, images, rows, device)?,
            ..Conditioning::default()
        };
        let mut draws: Vec<Rng> = rows
            .iter()
            .map(|row| Rng::stream(0, "denoising", *row as u64))
            .collect();
        let mut sums = vec![0.0; rows.len()];
        for call in &plan.calls {
            progress.add(0)?;
            let noise: Vec<f32> = draws
                .iter_mut()
                .flat_map(|rng| rng.normal_vec(values))
                .collect();
            let noise = Tensor::<4>::from_data(TensorData::new(noise, x0.dims()), device);
            let x = x0.clone() * call.level.alpha + noise.clone() * call.level.sigma;
            let time = Tensor::full([rows.len()], call.time, device);
            let input = x.clone() * call.input_scale;
            let channels = x.dims()[1];
            // A variance may be beside the prediction.
            let output = pipeline.network.predict(input, time, &condition);
            let output = output.narrow(1, 0, channels);
            let (of_sample, of_output) = call.coefficients.epsilon;
            let error = x * of_sample + output * of_output - noise;
            let errors = error.square().flatten::<2>(1, 3).mean_dim(1).to_data();
            for (sum, error) in sums.iter_mut().zip(errors.iter::<f64>()) {
                *sum += error / plan.len() as f64;
            }
        }
        all.extend(sums);
        progress.add(rows.len())?;
    }
    Ok(all)
}

/// The class of each image for a network with classes: that of the same name, by number for a model
/// without names, and else the null class.
fn classes(
    pipeline: &Pipeline,
    images: &ImageSet,
    rows: &[usize],
    device: &Device,
) -> Result<Option<Tensor<1, Int>>> {
    let Some(count) = pipeline.num_classes() else {
        return Ok(None);
    };
    let class = |row: &usize| {
        let label = images.images[*row].label?;
        match pipeline.labels().is_empty() {
            true => Some(label).filter(|label| (*label as usize) < count),
            false => pipeline.class(images.classes.get(label as usize)?).ok(),
        }
    };
    let found: Option<Vec<i32>> = rows
        .iter()
        .map(|row| {
            class(row)
                .or(pipeline.null_class())
                .map(|class| class as i32)
        })
        .collect();
    let found = found.ok_or_else(|| {
        Error::argument(
            "--against",
            "images without the classes of the model",
            "folders that are named after them, for the losses",
        )
    })?;
    let data = TensorData::new(found, [rows.len()]);
    Ok(Some(Tensor::from_data(data, device)))
}
