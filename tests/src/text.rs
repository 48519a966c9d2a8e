//! What tests of aigc-text share.

use crate::{folder_from, skip};
use aigc_core::rng::InitWeights;
use aigc_text::{BpeTokenizer, Gpt2, Gpt2Config};
use burn::tensor::Device;

/// A GPT-2 whose logits are far enough apart for their order to be certain; sizes are layers, heads
/// and width.
///
/// # Panics
/// If there is no such model.
pub fn small_gpt2(
    seed: u64,
    vocabulary: usize,
    context: usize,
    [n_layer, n_head, n_embd]: [usize; 3],
) -> Gpt2 {
    let config = Gpt2Config {
        vocab_size: vocabulary,
        n_positions: context,
        n_embd,
        n_layer,
        n_head,
        initializer_range: 0.4,
        bos_token_id: None,
        eos_token_id: None,
        ..Gpt2Config::default()
    };
    config
        .init(&Device::flex())
        .expect("valid sizes")
        .init_weights(seed)
}

/// GPT-2's own tokenizer, of `AIGC_DATA`; says that the test is skipped without.
///
/// # Panics
/// If it is broken.
pub fn gpt2_tokenizer() -> Option<BpeTokenizer> {
    let folder = folder_from("AIGC_DATA").map(|data| data.join("gpt2-tokenizer"));
    let Some(folder) = folder.filter(|folder| folder.is_dir()) else {
        skip("AIGC_DATA has no gpt2-tokenizer");
        return None;
    };
    Some(BpeTokenizer::from_pretrained(folder).expect("GPT-2's files"))
}
