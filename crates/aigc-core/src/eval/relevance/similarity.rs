//! Cosine similarity of pairs of embeddings, and the CLIP score.

use crate::{
    Error, Result,
    eval::{Estimate, Features, features::pairwise::squared_norm},
};

/// Cosine similarity of each row of `a` with the row of `b` at the same position, in `[-1, 1]`.
///
/// # Errors
/// [`Error::InvalidArgument`] if the sets are empty, differ in length or width, or a row is zero.
pub fn cosine_similarity(a: &Features, b: &Features) -> Result<Vec<f64>> {
    check_pairs(("a", a), ("b", b))?;
    let cosines = a.rows().zip(b.rows()).enumerate().map(|(i, (x, y))| {
        let product = norm("a", i, x)? * norm("b", i, y)?;
        Ok((dot(x, y) / product).clamp(-1.0, 1.0))
    });
    cosines.collect()
}

/// The agreement of images with their texts in the embeddings of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipScore {
    /// `max(mean of 100·cos, 0)`, the value of torchmetrics: a negative cosine of one pair lowers
    /// the mean.
    pub mean: f64,
    /// `100·max(cos, 0)` of each pair.
    pub pairs: Vec<f64>,
    /// Standard error of the mean of `100·cos`; `None` for a single pair.
    pub standard_error: Option<f64>,
}

/// CLIP score (Hessel et al. 2021, <https://arxiv.org/abs/2104.08718>) of images and the texts at
/// the same positions, with the scale of torchmetrics: 0 to 100. (The paper scales by 2.5 instead
/// of 100.) The embeddings are those of both projections of a CLIP model; they need not have unit
/// length.
///
/// # Errors
/// [`Error::InvalidArgument`] if the sets are empty, differ in length or width, or a row is zero.
pub fn clip_score(image_embeds: &Features, text_embeds: &Features) -> Result<ClipScore> {
    check_pairs(("image_embeds", image_embeds), ("text_embeds", text_embeds))?;
    let mut scores = cosine_similarity(image_embeds, text_embeds)?;
    scores.iter_mut().for_each(|score| *score *= 100.0);
    let standard_error = match scores.len() {
        1 => None,
        _ => Some(Estimate::from_samples(&scores)?.standard_error),
    };
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    Ok(ClipScore {
        mean: mean.max(0.0),
        pairs: scores.into_iter().map(|score| score.max(0.0)).collect(),
        standard_error,
    })
}

/// Fails unless both sets have the same size, and at least one row.
pub(super) fn check_pairs(a: (&str, &Features), b: (&str, &Features)) -> Result<()> {
    if a.1.is_empty() {
        return Err(Error::argument(a.0, "empty", "at least one row"));
    }
    if a.1.len() != b.1.len() {
        let expected = format!("{}, as many as `{}`", a.1.len(), a.0);
        return Err(Error::argument(
            b.0,
            format!("{} rows", b.1.len()),
            expected,
        ));
    }
    if a.1.width() != b.1.width() {
        let expected = format!("{}, the width of `{}`", a.1.width(), a.0);
        return Err(Error::argument(
            b.0,
            format!("{} values wide", b.1.width()),
            expected,
        ));
    }
    Ok(())
}

/// Euclidean length of row `i` of `name`, which must not be zero.
pub(super) fn norm(name: &str, i: usize, row: &[f32]) -> Result<f64> {
    let norm = squared_norm(row).sqrt();
    if norm > 0.0 {
        Ok(norm)
    } else {
        Err(Error::argument(
            name,
            format!("zero in row {i}"),
            "rows that are not zero",
        ))
    }
}

fn dot(x: &[f32], y: &[f32]) -> f64 {
    let products = x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y));
    products.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(values: &[f32]) -> Features {
        Features::new(values.to_vec(), 2).unwrap()
    }

    #[test]
    fn cosines_match_angles() {
        let a = features(&[1.0, 0.0, 2.0, 2.0, 0.0, 3.0]);
        let b = features(&[5.0, 0.0, 1.0, 0.0, 0.0, -1.0]);
        let cosines = cosine_similarity(&a, &b).unwrap();
        assert_eq!((cosines[0], cosines[2]), (1.0, -1.0));
        assert!((cosines[1] - 0.5f64.sqrt()).abs() < 1e-12);
        let score = clip_score(&a, &b).unwrap();
        assert!((score.mean - 100.0 * 0.5f64.sqrt() / 3.0).abs() < 1e-9);
        assert_eq!((score.pairs[0], score.pairs[2]), (100.0, 0.0));
    }

    #[test]
    fn negative_mean_is_zero() {
        let score = clip_score(&features(&[1.0, 0.0]), &features(&[-1.0, 0.1])).unwrap();
        assert_eq!((score.mean, score.standard_error), (0.0, None));
    }

    #[test]
    fn mismatched_and_zero_rows_are_errors() {
        let a = features(&[1.0, 0.0]);
        let message = |b: &Features| clip_score(&a, b).unwrap_err().to_string();
        assert!(message(&features(&[1.0; 4])).contains("`text_embeds` is 2 rows"));
        let wide = Features::new(vec![1.0; 3], 3).unwrap();
        assert!(message(&wide).contains("`text_embeds` is 3 values wide"));
        assert!(message(&features(&[0.0; 2])).contains("zero in row 0"));
        let none = Features::empty(2).unwrap();
        assert!(cosine_similarity(&none, &none).is_err());
    }
}
