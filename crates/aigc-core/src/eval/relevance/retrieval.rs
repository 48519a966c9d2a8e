//! Finding the caption of an image among all captions, and the image of a caption.

use super::{
    Proportion,
    similarity::{check_pairs, norm},
};
use crate::{
    Error, Result,
    eval::{Features, features::pairwise::for_each_block},
};

/// Cosines closer than this are equal: the difference is rounding of the products.
const TIE: f64 = 1e-9;

/// Ranks of the right candidates of all queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrievalRanks {
    ranks: Vec<usize>,
}

impl RetrievalRanks {
    /// The rank of each query's own candidate, counted from 1. Candidates that are as near as the
    /// own one rank before it, so embeddings that are all equal find nothing.
    pub fn ranks(&self) -> &[usize] {
        &self.ranks
    }

    /// Recall at `k`: the share of queries whose own candidate is among the `k` nearest.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `k` is 0 or exceeds the number of candidates.
    pub fn recall(&self, k: usize) -> Result<Proportion> {
        let total = self.ranks.len();
        if k == 0 || k > total {
            return Err(Error::argument(
                "k",
                k,
                format!("1 to {total}, the number of candidates"),
            ));
        }
        let found = self.ranks.iter().filter(|rank| **rank <= k).count();
        Proportion::new(found, total)
    }

    /// Median rank: 1 is perfect; the mean of the middle two for an even number.
    pub fn median_rank(&self) -> f64 {
        let mut sorted = self.ranks.clone();
        sorted.sort_unstable();
        let half = sorted.len() / 2;
        if sorted.len().is_multiple_of(2) {
            0.5 * (sorted[half - 1] + sorted[half]) as f64
        } else {
            sorted[half] as f64
        }
    }
}

/// Retrieval in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retrieval {
    /// Images as queries: the rank of the own text among all texts.
    pub image_to_text: RetrievalRanks,
    /// Texts as queries: the rank of the own image among all images.
    pub text_to_image: RetrievalRanks,
}

/// Ranks all texts for each image and all images for each text by cosine similarity; row `i` of
/// both sets is a pair. Recall at 1, 5 and 10 in both directions is the usual summary (Radford et
/// al. 2021, <https://arxiv.org/abs/2103.00020>, table 13). Equal texts count as different ones:
/// give each text once.
///
/// The embeddings may come from any model. To evaluate a CLIP model directly during training, see
/// `aigc_encoders::clip::retrieval_accuracy`.
///
/// # Errors
/// [`Error::InvalidArgument`] if the sets are empty, differ in length or width, or a row is zero.
pub fn caption_retrieval(image_embeds: &Features, text_embeds: &Features) -> Result<Retrieval> {
    check_pairs(("image_embeds", image_embeds), ("text_embeds", text_embeds))?;
    let images = unit_rows("image_embeds", image_embeds)?;
    let texts = unit_rows("text_embeds", text_embeds)?;
    Ok(Retrieval {
        image_to_text: ranks(&images, &texts),
        text_to_image: ranks(&texts, &images),
    })
}

fn unit_rows(name: &str, features: &Features) -> Result<Features> {
    let mut values = Vec::with_capacity(features.values().len());
    for (i, row) in features.rows().enumerate() {
        let norm = norm(name, i, row)?;
        values.extend(row.iter().map(|value| (f64::from(*value) / norm) as f32));
    }
    Features::new(values, features.width())
}

fn ranks(queries: &Features, candidates: &Features) -> RetrievalRanks {
    let mut ranks = vec![0; queries.len()];
    for_each_block(queries, candidates, |first, rows, cosines| {
        let rows = cosines.chunks_exact(candidates.len()).take(rows);
        for (i, row) in rows.enumerate() {
            let own = row[first + i] - TIE;
            // The own candidate counts as well, so ranks start at 1.
            ranks[first + i] = row.iter().filter(|cosine| **cosine >= own).count();
        }
    });
    RetrievalRanks { ranks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_match_angles() {
        let images = Features::new(vec![1.0, 0.0, 0.0, 1.0, 0.6, 0.8], 2).unwrap();
        let perfect = caption_retrieval(&images, &images).unwrap();
        assert_eq!(perfect.image_to_text.ranks(), [1, 1, 1]);
        assert_eq!(perfect.text_to_image.median_rank(), 1.0);
        // The second text points to the first image; the length of a row does not matter.
        let texts = Features::new(vec![3.0, 0.3, 2.0, 0.0, 0.6, 0.8], 2).unwrap();
        let got = caption_retrieval(&images, &texts).unwrap();
        assert_eq!(got.image_to_text.ranks(), [2, 3, 1]);
        assert_eq!(got.text_to_image.ranks(), [1, 3, 1]);
        assert_eq!(got.image_to_text.recall(2).unwrap().count(), 2);
        assert_eq!(got.image_to_text.median_rank(), 2.0);
    }

    #[test]
    fn collapsed_embeddings_find_nothing() {
        let same = Features::new(vec![0.5; 16], 2).unwrap();
        let got = caption_retrieval(&same, &same).unwrap();
        assert_eq!(got.image_to_text.ranks(), [8; 8]);
        assert_eq!(got.text_to_image.recall(1).unwrap().count(), 0);
    }

    #[test]
    fn bad_arguments_are_errors() {
        let one = Features::new(vec![1.0, 0.0], 2).unwrap();
        let two = Features::new(vec![1.0; 4], 2).unwrap();
        assert!(caption_retrieval(&one, &two).is_err());
        let got = caption_retrieval(&one, &one).unwrap().image_to_text;
        let error = got.recall(2).unwrap_err().to_string();
        assert!(error.contains("`k` is 2, expected 1 to 1"), "{error}");
        assert!(got.recall(0).is_err());
    }
}
