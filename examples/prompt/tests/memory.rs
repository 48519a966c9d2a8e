//! The estimate of a request's memory beside the peak of this process, which has no other test.
#![cfg(target_os = "linux")]

use aigc_core::{
    burn::tensor::Device,
    text_to_image::{ImageRequest, TextToImage},
};
use aigc_pipelines::text_to_image::TextToImagePipeline;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/paint/model");

/// The largest resident size so far, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn estimates_are_near_the_peak() {
    let before = peak();
    let pipeline = TextToImagePipeline::from_pretrained(MODEL, &Device::flex()).unwrap();
    let pipeline = pipeline.into_inner();
    let request = ImageRequest::new("two red circles left of a blue square")
        .with_size(768, 768)
        .with_num_inference_steps(2)
        .with_seed(0);
    let estimate = pipeline.memory_estimate(&request, pipeline.options());
    let estimate = estimate.unwrap().peak as f64;
    pipeline.generate(&request).unwrap();
    let used = (peak() - before) as f64;
    let (estimate, used) = (estimate / 1_048_576.0, used / 1_048_576.0);
    assert!(used > 100.0, "{used:.0} MiB");
    assert!(
        (0.6..1.5).contains(&(used / estimate)),
        "{used:.0} MiB, estimated {estimate:.0} MiB"
    );
}
