//! Evaluation of a pair of encoders: finding the caption of an image among others.

use super::{CaptionedImages, ClipModel, contrastive::check_batch};
use aigc_core::{Error, Result};
use burn::{module::Module, tensor::Tensor};

/// How often a [`ClipModel`] finds what belongs together.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetrievalAccuracy {
    /// Fraction of images whose caption is nearer than those of all other candidates.
    pub caption: f64,
    /// Fraction of captions whose image is nearer than all other candidates.
    pub image: f64,
    /// Number of pairs that were compared.
    pub pairs: usize,
}

/// Compares every image with `candidates` captions, its own and those of its neighbours, and every
/// caption with as many images. Pairs are compared in groups, in the order of the batches; those
/// left over at the end form no group. Of equally near candidates, the right one counts as found,
/// so that equal captions are no mistakes.
///
/// # Errors
/// [`Error::InvalidArgument`] for fewer than two candidates, fewer pairs than candidates, and
/// batches that do not fit the model; errors of the batches.
pub fn retrieval_accuracy<B: CaptionedImages>(
    model: &ClipModel,
    batches: impl IntoIterator<Item = Result<B>>,
    candidates: usize,
) -> Result<RetrievalAccuracy> {
    if candidates < 2 {
        return Err(Error::argument("candidates", candidates, "2 or more"));
    }
    let device = model.devices().into_iter().next().unwrap_or_default();
    let width = model.config().projection_dim;
    let (mut texts, mut images): (Vec<f32>, Vec<f32>) = (vec![], vec![]);
    for batch in batches {
        let batch = batch?;
        let (ids, pixels) = (batch.input_ids(&device), batch.pixel_values(&device));
        check_batch(model, &ids, &pixels)?;
        let output = model.forward(ids, pixels, batch.attention_mask(&device));
        let host = |x: Tensor<2>| x.into_data().iter::<f32>().collect::<Vec<_>>();
        texts.extend(host(output.text_embeds));
        images.extend(host(output.image_embeds));
    }
    let pairs = texts.len() / width / candidates * candidates;
    if pairs == 0 {
        let found = format!("{} pairs", texts.len() / width);
        let expected = format!("at least {candidates}, the number of candidates");
        return Err(Error::argument("batches", found, expected));
    }
    let (mut caption, mut image) = (0, 0);
    let group = candidates * width;
    for (texts, images) in texts.chunks_exact(group).zip(images.chunks_exact(group)) {
        caption += found(images, texts, width);
        image += found(texts, images, width);
    }
    let fraction = |count: usize| count as f64 / pairs as f64;
    Ok(RetrievalAccuracy {
        caption: fraction(caption),
        image: fraction(image),
        pairs,
    })
}

/// Number of queries that are nearest to the candidate of the same number.
fn found(queries: &[f32], candidates: &[f32], width: usize) -> usize {
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let is_found = |(own, query): &(usize, &[f32])| {
        let right = cosine(query, &candidates[own * width..(own + 1) * width]);
        let mut others = candidates.chunks_exact(width);
        others.all(|other| cosine(query, other) <= right)
    };
    queries
        .chunks_exact(width)
        .enumerate()
        .filter(is_found)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_candidates_are_counted() {
        let queries = [1.0, 0.0, 0.0, 1.0, 0.6, 0.8];
        assert_eq!(found(&queries, &queries, 2), 3);
        // The second query is nearer to the third candidate, the first one as near to the second.
        let candidates = [1.0, 0.0, 1.0, 0.0, 0.6, 0.8];
        assert_eq!(found(&queries, &candidates, 2), 2);
    }
}
