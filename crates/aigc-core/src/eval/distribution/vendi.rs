//! The Vendi score.

use super::{Features, check_count, lengths};
use crate::{
    Error, Result,
    eval::{
        features::pairwise::{for_each_block, squared_norms},
        moments::add_products,
    },
};
use faer::{Mat, Side};

/// Largest matrix whose eigenvalues are computed.
const LARGEST: usize = 4096;

/// The effective number of different samples: `exp(−Σ λ·ln λ)` over the eigenvalues `λ` of `K/n`,
/// where `K` has the cosine similarities of the samples (Friedman and Dieng 2023,
/// <https://arxiv.org/abs/2210.02410>, definition 3.1). From 1, for samples that point in one
/// direction, to the number of samples, if all are orthogonal. It is `vendi.score_X` of the
/// authors' package.
///
/// The eigenvalues other than 0 are those of the product of the features with themselves; the
/// smaller of the two matrices is decomposed.
///
/// # Errors
/// [`Error::InvalidArgument`] for no samples, a row of zeros, or more than 4,096 samples *and*
/// features.
pub fn vendi_score(x: &Features) -> Result<f64> {
    check_count(x, 1)?;
    let (n, d) = (x.len(), x.width());
    check_size(n, d)?;
    let lengths = lengths(&squared_norms(x))?;
    let similarity = if n <= d {
        cosines(x, &lengths)
    } else {
        products(x, &lengths)
    };
    let eigenvalues = similarity.self_adjoint_eigenvalues(Side::Lower);
    let eigenvalues = eigenvalues.map_err(|_| {
        let expected = "similarities with eigenvalues";
        Error::argument("features", "without them", expected)
    })?;
    let shares = eigenvalues.iter().map(|value| value / n as f64);
    let terms = shares.filter(|share| *share > 0.0);
    Ok(terms.map(|share| -share * share.ln()).sum::<f64>().exp())
}

fn check_size(n: usize, d: usize) -> Result<()> {
    if n.min(d) > LARGEST {
        let expected = format!("at most {LARGEST} if there are more features than that");
        return Err(Error::argument("samples", n, expected));
    }
    Ok(())
}

/// Cosine similarities, `n × n`.
fn cosines(x: &Features, lengths: &[f64]) -> Mat<f64> {
    let mut similarity = Mat::<f64>::zeros(x.len(), x.len());
    for_each_block(x, x, |first, _, products| {
        for (row, products) in products.chunks_exact(x.len()).enumerate() {
            let i = first + row;
            let column = similarity.col_as_slice_mut(i).iter_mut();
            for ((value, product), length) in column.zip(products).zip(lengths) {
                *value = product / (lengths[i] * length);
            }
        }
    });
    similarity
}

/// Lower triangle of the products of the features of rows of length 1, `d × d`.
fn products(x: &Features, lengths: &[f64]) -> Mat<f64> {
    let mut sum = Mat::<f64>::zeros(x.width(), x.width());
    let rows: Vec<&[f32]> = x.rows().collect();
    for (rows, lengths) in rows.chunks(256).zip(lengths.chunks(256)) {
        let scaled: Vec<f64> = rows
            .iter()
            .zip(lengths)
            .flat_map(|(row, length)| row.iter().map(move |value| f64::from(*value) / length))
            .collect();
        add_products(&mut sum, &scaled);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::distribution::tests::normal;

    #[test]
    fn score_counts_different_directions() {
        let score = |values: &[f32], width| {
            vendi_score(&Features::new(values.to_vec(), width).unwrap()).unwrap()
        };
        assert!((score(&[1.0, 2.0].repeat(6), 2) - 1.0).abs() < 1e-9);
        // Orthogonal, of any lengths, in both ways of computing it.
        assert!((score(&[3.0, 0.0, 0.0, 0.0, 2.0, 0.0], 3) - 2.0).abs() < 1e-9);
        assert!((score(&[3.0, 0.0, 0.0, 2.0, 1.0, 0.0, 0.0, 5.0], 2) - 2.0).abs() < 1e-9);
        // Three quarters against one quarter: exp of the entropy.
        let entropy = -(0.75 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
        let uneven = score(&[1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0], 2);
        assert!((uneven - entropy.exp()).abs() < 1e-9, "{uneven}");
    }

    /// Both matrices have the same eigenvalues other than 0.
    #[test]
    fn both_matrices_give_one_score() {
        let x = normal(5, 30, 8);
        let lengths = lengths(&squared_norms(&x)).unwrap();
        let spectrum = |matrix: &Mat<f64>| {
            let mut values = matrix.self_adjoint_eigenvalues(Side::Lower).unwrap();
            values.reverse();
            values.truncate(8);
            values
        };
        let (a, b) = (
            spectrum(&cosines(&x, &lengths)),
            spectrum(&products(&x, &lengths)),
        );
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() < 1e-9, "{a} {b}");
        }
    }

    #[test]
    fn invalid_features_are_errors() {
        let none = Features::empty(3).unwrap();
        assert!(
            vendi_score(&none)
                .unwrap_err()
                .to_string()
                .contains("`samples` is 0")
        );
        let zero = Features::new(vec![1.0, 1.0, 0.0, 0.0], 2).unwrap();
        assert!(
            vendi_score(&zero)
                .unwrap_err()
                .to_string()
                .contains("row 1")
        );
        assert!(check_size(4097, 4096).is_ok() && check_size(4096, 4097).is_ok());
        let error = check_size(4097, 5000).unwrap_err().to_string();
        assert!(
            error.contains("`samples` is 4097, expected at most 4096"),
            "{error}"
        );
    }
}
