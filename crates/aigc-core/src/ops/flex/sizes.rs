//! Sizes of convolutions and attention, if the kernels support them.

use super::tensors::{all_f32, dims};
use aigc_kernels::{attention::AttentionSizes, conv::ConvSizes};
use burn::{
    backend::{TensorMetadata, flex::FlexTensor},
    tensor::ops::{ConvOptions, ConvTransposeOptions},
};

/// Sizes of a convolution from `x` to `y`, if the kernels support it: groups that divide the
/// channels, and no empty axis.
pub(super) fn sizes(
    x: [usize; 4],
    y: [usize; 4],
    weight: [usize; 4],
    options: &ConvOptions<2>,
) -> Option<ConvSizes> {
    let [batch, channels_in, height, width] = x;
    let [_, channels_out, out_height, out_width] = y;
    let groups = options.groups;
    let divided = |channels: usize| groups > 0 && channels.is_multiple_of(groups);
    let fits = divided(channels_in)
        && divided(channels_out)
        && x.iter().chain(&y).chain(&weight).all(|n| *n > 0);
    fits.then_some(ConvSizes {
        batch,
        channels_in,
        channels_out,
        groups,
        input: [height, width],
        output: [out_height, out_width],
        kernel: [weight[2], weight[3]],
        stride: options.stride,
        padding: options.padding.map(|(begin, _)| begin),
        dilation: options.dilation,
    })
}

/// Shape of a convolution's output; `None` if the kernel is larger than the padded input.
pub(super) fn conv_output(
    x: [usize; 4],
    weight: [usize; 4],
    options: &ConvOptions<2>,
) -> Option<[usize; 4]> {
    let side = |axis: usize| {
        let (begin, end) = options.padding[axis];
        let reach = options.dilation[axis] * (weight[2 + axis].checked_sub(1)?) + 1;
        Some((x[2 + axis] + begin + end).checked_sub(reach)? / options.stride[axis] + 1)
    };
    Some([x[0], weight[0], side(0)?, side(1)?])
}

/// The options of the convolution whose transpose is computed.
pub(super) fn mirrored(options: &ConvTransposeOptions<2>) -> ConvOptions<2> {
    ConvOptions::new(
        options.stride,
        options.padding,
        options.dilation,
        options.groups,
    )
}

/// Shape of a transposed convolution's output; `None` if an axis is empty.
pub(super) fn transposed_output(
    x: [usize; 4],
    weight: [usize; 4],
    options: &ConvTransposeOptions<2>,
) -> Option<[usize; 4]> {
    let side = |axis: usize| {
        let reach = options.dilation[axis] * weight[2 + axis].checked_sub(1)?
            + options.padding_out[axis]
            + 1;
        (x[2 + axis].checked_sub(1)? * options.stride[axis] + reach)
            .checked_sub(2 * options.padding[axis])
    };
    Some([x[0], weight[1] * options.groups, side(0)?, side(1)?])
}

pub(super) fn attention_sizes(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    causal: bool,
) -> Option<AttentionSizes> {
    let ([batch, heads, queries, d], [_, kv_heads, keys, _]) = (dims(q), dims::<4>(k));
    let something = [batch, heads, kv_heads, queries, keys, d]
        .iter()
        .all(|n| *n > 0);
    let same = k.shape() == v.shape()
        && dims::<4>(k) == [batch, kv_heads, keys, d]
        && something
        && heads.is_multiple_of(kv_heads)
        && (!causal || queries <= keys);
    (all_f32(&[q, k, v]) && something && same).then_some(AttentionSizes {
        batch,
        heads,
        kv_heads,
        queries,
        keys,
        d,
        causal,
    })
}

pub(super) fn self_attention_sizes(
    qkv: &FlexTensor,
    heads: usize,
    causal: bool,
) -> Option<AttentionSizes> {
    let [batch, tokens, width] = dims(qkv);
    assert!(
        heads > 0 && width.is_multiple_of(3 * heads),
        "{heads} heads of queries, keys and values {width} wide"
    );
    let d = width / (3 * heads);
    let something = [batch, heads, tokens, d].iter().all(|n| *n > 0);
    let sizes = AttentionSizes {
        batch,
        heads,
        kv_heads: heads,
        queries: tokens,
        keys: tokens,
        d,
        causal,
    };
    (all_f32(&[qkv]) && something).then_some(sizes)
}
