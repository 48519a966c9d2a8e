//! Peak memory of the process. A test that is added belongs into a process of its own.
#![cfg(target_os = "linux")]

use aigc_core::{nn::scaled_dot_product_attention, rng::Rng};
use burn::tensor::{Device, Tensor};

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

/// All scores of the forward pass are 512 MiB, those of the backward pass 256 MiB.
#[test]
fn attention_never_holds_all_scores() {
    let device = Device::flex();
    let forward = added(|| {
        let mut draw = |seed| Rng::new(seed).normal::<4>([1, 2, 8192, 32], &device);
        let out = scaled_dot_product_attention(draw(0), draw(1), draw(2), None, false);
        assert!(out.mean().into_scalar::<f32>().is_finite());
    });
    assert!(forward < 64, "forward: {forward} MiB more");

    let device = device.autodiff();
    let backward = added(|| {
        let mut draw = |seed| {
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
}
