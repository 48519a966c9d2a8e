//! Embeddings of tokens that are replaced or added, such as those of textual inversion (Gal et al.
//! 2022, <https://arxiv.org/abs/2208.01618>).

use super::ClipTextModel;
use aigc_core::{Error, Result};
use burn::tensor::Tensor;

impl ClipTextModel {
    /// The embeddings of all tokens, `[vocab_size, hidden_size]`.
    pub fn token_embeddings(&self) -> Tensor<2> {
        self.text_model.embeddings.token_embedding.weight.val()
    }

    /// Sets the embeddings of tokens, for example those of textual inversion. Ids beyond the
    /// vocabulary extend it.
    ///
    /// # Shapes
    /// - rows: `[ids, hidden_size]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the rows have another shape, or the ids leave a gap behind the
    /// vocabulary.
    pub fn set_token_embeddings(mut self, ids: &[u32], rows: Tensor<2>) -> Result<Self> {
        let (size, width) = (self.config.vocab_size, self.config.hidden_size);
        let shape = [ids.len(), width];
        if rows.dims() != shape {
            let expected = format!("{shape:?}: a row of hidden_size for each token");
            return Err(Error::argument(
                "rows",
                format!("{:?}", rows.dims()),
                expected,
            ));
        }
        let mut beyond: Vec<usize> = ids.iter().map(|id| *id as usize).collect();
        beyond.retain(|id| *id >= size);
        beyond.sort_unstable();
        beyond.dedup();
        let is_next = |(place, id): (usize, &usize)| *id == size + place;
        if let Some(gap) = beyond.iter().enumerate().find(|pair| !is_next(*pair)) {
            let expected = format!("{}, the next id behind the vocabulary", size + gap.0);
            return Err(Error::argument("ids", gap.1, expected));
        }
        let new_size = size + beyond.len();
        let table = &mut self.text_model.embeddings.token_embedding;
        table.weight = table.weight.clone().map(|weight| {
            let (device, requires_grad) = (weight.device(), weight.is_require_grad());
            let rows = rows.to_device(&device).detach().cast(weight.dtype());
            let mut weight = weight.detach();
            if !beyond.is_empty() {
                let empty = Tensor::zeros([beyond.len(), width], (&device, weight.dtype()));
                weight = Tensor::cat(vec![weight, empty], 0);
            }
            for (row, id) in ids.iter().enumerate() {
                let (id, row) = (*id as usize, rows.clone().narrow(0, row, 1));
                weight = weight.slice_assign([id..id + 1, 0..width], row);
            }
            weight.set_require_grad(requires_grad)
        });
        self.config.vocab_size = new_size;
        Ok(self)
    }

    /// Adds tokens behind the vocabulary with these embeddings; returns the model and the ids.
    ///
    /// # Shapes
    /// - rows: `[tokens, hidden_size]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the rows have another width.
    pub fn with_extra_embeddings(self, rows: Tensor<2>) -> Result<(Self, Vec<u32>)> {
        let first = self.config.vocab_size as u32;
        let ids: Vec<u32> = (first..first + rows.dims()[0] as u32).collect();
        Ok((self.set_token_embeddings(&ids, rows)?, ids))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::super::text::tests::{ids, tiny};
    use aigc_core::{
        rng::Rng,
        testing::{flex, values},
    };
    use burn::tensor::Tensor;

    #[test]
    fn embeddings_are_replaced_and_added() {
        let model = tiny(9);
        let before = values(model.token_embeddings());
        let rows: Tensor<2> = Rng::new(2).normal([3, 8], &flex());
        let changed = model
            .clone()
            .set_token_embeddings(&[4, 21, 20], rows.clone())
            .unwrap();
        let (after, rows) = (values(changed.token_embeddings()), values(rows.clone()));
        assert_eq!(changed.config().vocab_size, 22);
        assert_eq!(after[..4 * 8], before[..4 * 8]);
        assert_eq!(after[4 * 8..5 * 8], rows[..8]);
        assert_eq!(after[5 * 8..20 * 8], before[5 * 8..]);
        assert_eq!(after[20 * 8..21 * 8], rows[16..]);
        assert_eq!(after[21 * 8..], rows[8..16]);
        changed.forward(ids([[1, 20, 21, 9, 9]; 2]), None);

        let wide = Tensor::zeros([1, 9], &flex());
        let message = model.clone().set_token_embeddings(&[4], wide).unwrap_err();
        assert!(
            message.to_string().contains("`rows` is [1, 9]"),
            "{message}"
        );
        let far = Tensor::zeros([1, 8], &flex());
        let message = model.clone().set_token_embeddings(&[30], far).unwrap_err();
        assert!(
            message.to_string().contains("`ids` is 30, expected 20"),
            "{message}"
        );
        let (extended, ids) = model
            .with_extra_embeddings(Tensor::zeros([2, 8], &flex()))
            .unwrap();
        assert_eq!((ids, extended.config().vocab_size), (vec![20, 21], 22));
    }
}
