//! A model that paints squares, and servers that have it.

#![allow(
    dead_code,
    reason = "each test is a separate program, and none uses everything"
)]

pub(crate) mod http;

use aigc_core::{
    Error, Result,
    text_to_image::{
        GeneratedImage, GeneratedImages, GenerationOptions, GenerationProgress, GenerationStage,
        ImageRequest, TextToImage,
    },
};
use aigc_examples_serve::{RunningServer, ServerConfig, start};
use image::{DynamicImage, Rgb, RgbImage};
use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

/// What a [`Squares`] has done.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) begun: AtomicUsize,
    pub(crate) steps: AtomicUsize,
    pub(crate) finished: AtomicUsize,
    pub(crate) cancelled: AtomicUsize,
}

impl Counts {
    pub(crate) fn of(count: &AtomicUsize) -> usize {
        count.load(Ordering::Relaxed)
    }
}

/// A model whose images have one colour each, by seed and number. Its steps take a time.
#[derive(Debug)]
pub(crate) struct Squares {
    pub(crate) step: Duration,
    pub(crate) counts: Arc<Counts>,
}

/// The colour of an image.
pub(crate) fn colour(seed: u64, index: usize) -> [u8; 3] {
    [(seed * 40 % 256) as u8, (index * 30 % 256) as u8, 77]
}

fn picture(size: (u32, u32), colour: [u8; 3]) -> DynamicImage {
    RgbImage::from_pixel(size.0, size.1, Rgb(colour)).into()
}

/// A picture that no format makes smaller.
fn noise(size: (u32, u32)) -> DynamicImage {
    let mut bits = 1u32;
    let mut byte = || {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (bits >> 24) as u8
    };
    RgbImage::from_fn(size.0, size.1, |_, _| Rgb([byte(), byte(), byte()])).into()
}

impl TextToImage for Squares {
    fn model_name(&self) -> &str {
        "squares"
    }

    fn generate_with(
        &self,
        request: &ImageRequest,
        options: &mut GenerationOptions<'_>,
    ) -> Result<GeneratedImages> {
        self.counts.begun.fetch_add(1, Ordering::Relaxed);
        match request.prompt.as_str() {
            "panic" => panic!("as asked"),
            "fail" => return Err(Error::weights("/models/secret-place", "broken")),
            _ => {}
        }
        let size = request
            .size
            .map_or((64, 64), |size| (size.width, size.height));
        if !size.0.is_multiple_of(8) || !size.1.is_multiple_of(8) {
            let value = format!("{}x{}", size.0, size.1);
            return Err(Error::argument("size", value, "sides divisible by 8"));
        }
        let n = request.n.unwrap_or(1);
        let steps = match request.prompt.as_str() {
            "no steps" => 0,
            _ => request.num_inference_steps.unwrap_or(4),
        };
        let (first, seed) = (request.first_image.unwrap_or(0), request.seed.unwrap_or(3));
        for step in 1..=steps {
            sleep(self.step);
            self.counts.steps.fetch_add(1, Ordering::Relaxed);
            let grey = [(step * 10 % 256) as u8; 3];
            let preview = || vec![picture(size, grey); n];
            let flow = options.report(&GenerationProgress {
                stage: GenerationStage::Denoising,
                images: 0..n,
                total: n,
                step,
                num_steps: steps,
                preview: Some(&preview),
            });
            if flow.is_break() {
                self.counts.cancelled.fetch_add(1, Ordering::Relaxed);
                return Err(Error::cancelled("squares"));
            }
            if request.prompt == "fail later" {
                return Err(Error::weights("/models/secret-place", "broken"));
            }
        }
        let images = (0..n).map(|i| {
            let painted = colour(seed, first + i);
            let image = match &request.image {
                None if request.prompt == "noise" => noise(size),
                None => picture(size, painted),
                Some(image) => {
                    let mut image = image.to_rgb8();
                    let mask = request.mask_image.as_ref();
                    for (x, y, pixel) in image.enumerate_pixels_mut() {
                        if mask.is_none_or(|mask| mask.get_pixel(x, y)[0] >= 128) {
                            pixel.0 = painted;
                        }
                    }
                    image.into()
                }
            };
            GeneratedImage::new(image, first + i)
        });
        let images = images.collect();
        self.counts.finished.fetch_add(1, Ordering::Relaxed);
        let mut used = request.clone();
        (used.seed, used.n) = (Some(seed), Some(n));
        let mut made = GeneratedImages::new(images, used, self.model_name());
        if request.prompt == "warn" {
            made.warnings.push("a part of the prompt was cut".into());
        }
        Ok(made)
    }
}

/// A server with [`Squares`], and what they have done.
pub(crate) fn serve_with(config: ServerConfig, step: Duration) -> (RunningServer, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let model = Squares {
        step,
        counts: counts.clone(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = Box::new(move || Ok(Box::new(model) as Box<dyn TextToImage>));
    (start(listener, config, open).unwrap(), counts)
}

/// A server that answers at once.
pub(crate) fn serve() -> RunningServer {
    serve_with(ServerConfig::default(), Duration::ZERO).0
}

/// Waits until `holds`, at most ten seconds.
pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        sleep(Duration::from_millis(2));
    }
}
