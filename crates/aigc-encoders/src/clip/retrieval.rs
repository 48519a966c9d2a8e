//! Evaluation of a pair of encoders: finding the caption of an image among others.

use super::{CaptionedImages, ClipModel, contrastive::compare_batch};
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
/// left over at the end form no group. The right candidate has to be nearer than all others, but
/// for those with the same caption, which are right, too. So a model that maps everything to one
/// point finds nothing.
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
    let mut captions: Vec<Vec<i64>> = vec![];
    for batch in batches {
        let batch = batch?;
        let ids = batch.input_ids(&device);
        let output = compare_batch(model, ids.clone(), &batch, &device)?;
        let [_, tokens] = ids.dims();
        let ids: Vec<i64> = ids.into_data().iter().collect();
        captions.extend(ids.chunks_exact(tokens).map(<[i64]>::to_vec));
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
    let embeds = texts.chunks_exact(group).zip(images.chunks_exact(group));
    for ((texts, images), captions) in embeds.zip(captions.chunks_exact(candidates)) {
        caption += found(images, texts, captions);
        image += found(texts, images, captions);
    }
    let fraction = |count: usize| count as f64 / pairs as f64;
    Ok(RetrievalAccuracy {
        caption: fraction(caption),
        image: fraction(image),
        pairs,
    })
}

/// Number of queries that are nearer to the candidate of the same number than to all others with
/// another label. Queries and candidates have one vector for each label.
fn found<L: PartialEq>(queries: &[f32], candidates: &[f32], labels: &[L]) -> usize {
    let width = queries.len() / labels.len();
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let is_found = |(own, query): &(usize, &[f32])| {
        let right = cosine(query, &candidates[own * width..(own + 1) * width]);
        let mut others = candidates.chunks_exact(width).zip(labels);
        others.all(|(other, label)| *label == labels[*own] || cosine(query, other) < right)
    };
    let queries = queries.chunks_exact(width).enumerate();
    queries.filter(is_found).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_candidates_are_counted() {
        let queries = [1.0, 0.0, 0.0, 1.0, 0.6, 0.8];
        assert_eq!(found(&queries, &queries, &[0, 1, 2]), 3);
        // The second query is nearer to the third candidate, the first one as near to the second,
        // which is no mistake if both have the same caption.
        let candidates = [1.0, 0.0, 1.0, 0.0, 0.6, 0.8];
        assert_eq!(found(&queries, &candidates, &[0, 1, 2]), 1);
        assert_eq!(found(&queries, &candidates, &[0, 0, 2]), 2);
    }

    /// Neither is one where all candidates are equally near, nor one of numbers that are none.
    #[test]
    fn collapsed_embeddings_find_nothing() {
        for value in [0.5, f32::NAN] {
            let same = [value; 8];
            assert_eq!(found(&same, &same, &[0, 1, 2, 3]), 0, "{value}");
        }
    }
}
