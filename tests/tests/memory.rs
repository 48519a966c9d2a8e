//! Peak memory of the process. A test that is added belongs into a process of its own.
#![cfg(target_os = "linux")]

use aigc_core::{nn::scaled_dot_product_attention, rng::Rng, testing::values};
use burn::tensor::{DType, Device, Tensor};

/// The largest resident size so far, in MiB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<usize>().unwrap() / 1024
}

/// MiB that `f` adds to the peak.
fn added(f: impl FnOnce()) -> usize {
    let before = peak();
    f();
    peak() - before
}

/// All scores of the forward pass are 512 MiB, those of the backward pass 256 MiB. In 64 bits Flex
/// has the default implementation: all scores are 512 MiB, and those of a block 128 MiB, of which
/// there are few copies.
#[test]
fn attention_never_holds_all_scores() {
    let device = Device::flex();
    let forward = added(|| {
        let draw = |seed| Rng::new(seed).normal::<4>([1, 2, 8192, 32], &device);
        let out = scaled_dot_product_attention(draw(0), draw(1), draw(2), None, false);
        assert!(out.mean().into_scalar::<f32>().is_finite());
    });
    assert!(forward < 64, "forward: {forward} MiB more");

    let device = device.autodiff();
    let backward = added(|| {
        let draw = |seed| {
            let x: Tensor<4> = Rng::new(seed).normal([1, 4, 4096, 32], &device);
            x.require_grad()
        };
        let (q, k, v) = (draw(0), draw(1), draw(2));
        let out = scaled_dot_product_attention(q.clone(), k, v, None, true);
        let grads = out.powi_scalar(2).sum().backward();
        let grad = q.grad(&grads).expect("it requires a gradient");
        assert!(grad.abs().sum().into_scalar::<f32>() > 0.0);
    });
    assert!(backward < 64, "backward: {backward} MiB more");

    let device = Device::flex();
    let default = added(|| {
        let draw = |seed| {
            let x: Tensor<4> = Rng::new(seed).normal([1, 1, 8192, 8], &device);
            x.cast(DType::F64)
        };
        let out = scaled_dot_product_attention(draw(0), draw(1), draw(2), None, false);
        assert_eq!(out.dtype(), DType::F64);
        assert!(values(out.mean())[0].is_finite());
    });
    assert!(default < 448, "default: {default} MiB more");
}
