//! Training with the objective of VAEs, and samples of the prior.

use super::{flex, tiny_kl, tiny_vq, train};
use aigc_core::rng::{InitWeights, Rng};
use aigc_tests::bits;
use aigc_vae::{Condition, Vae};
use burn::tensor::{Int, Tensor};

#[test]
fn training_lowers_the_loss_of_one_batch() {
    let model = tiny_kl().init(&flex()).unwrap().init_weights(0);
    let before = bits(&model);
    let (trained, losses) = train(model, 16, 20);
    assert!(losses.len() == 20 && losses[19] < losses[0], "{losses:?}");
    // The whole of the model is trained.
    let after = bits(&trained);
    for name in [
        "encoder.conv_in.weight",
        "encoder.mid_block.attentions.0.to_v.weight",
        "quant_conv.weight",
        "post_quant_conv.weight",
        "decoder.up_blocks.0.upsamplers.0.conv.weight",
        "decoder.conv_out.bias",
    ] {
        assert_ne!(before[name], after[name], "{name}");
    }

    let model = tiny_vq().init(&flex()).unwrap().init_weights(0);
    let before = bits(&model);
    let (trained, losses) = train(model, 16, 20);
    assert!(losses.len() == 20 && losses[19] < losses[0], "{losses:?}");
    let after = bits(&trained);
    for name in [
        "encoder.conv_in.weight",
        "quant_conv.weight",
        "quantize.embedding.weight",
        "post_quant_conv.weight",
        "decoder.conv_out.bias",
    ] {
        assert_ne!(before[name], after[name], "{name}");
    }
}

/// Indices of codes can be drawn by another model, and a prior's samples decode.
#[test]
fn samples_of_the_prior_decode_to_images() {
    let (model, none) = (
        tiny_vq().init(&flex()).unwrap().init_weights(0),
        Condition::none(),
    );
    let z: Tensor<4> = model.sample_prior(3, &none, 1.0, &mut Rng::new(1), &flex());
    assert_eq!(z.dims(), [3, 3, 4, 4]);
    assert_eq!(Vae::<4, 4>::decode(&model, z).mean().dims(), [3, 1, 8, 8]);
    let indices = Tensor::<3, Int>::zeros([2, 4, 4], &flex());
    assert_eq!(model.decode_indices(indices).mean().dims(), [2, 1, 8, 8]);
}
