//! A network that predicts the noise of normally distributed data exactly.

use crate::{
    denoiser::{Conditioning, Denoiser},
    schedule::NoiseScheduleConfig,
};
use aigc_core::{Result, data::SampleShape};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};

/// Predicts the noise of samples whose values are independent and normally distributed, with
/// standard deviation `deviation` and mean `mean`, plus a hundredth of the class number for samples
/// with classes. Times are those of DDPM's thousand steps.
#[derive(Module, Debug)]
pub(crate) struct Gaussian {
    /// `ᾱ` at each time.
    alphas: Param<Tensor<1>>,
    mean: f64,
    deviation: f64,
    classes: Option<usize>,
}

impl Gaussian {
    pub(crate) fn new(mean: f64, deviation: f64, device: &Device) -> Self {
        let alphas = NoiseScheduleConfig::default().alphas_cumprod().unwrap();
        let count = alphas.len();
        let alphas = Tensor::from_data(TensorData::new(alphas, [count]), device);
        Self {
            alphas: Param::from_tensor(alphas),
            mean,
            deviation,
            classes: None,
        }
    }

    /// `ᾱ` at any time: between steps, the logarithm of `σ/α` is interpolated linearly.
    fn alpha(&self, time: Tensor<1>) -> Tensor<1> {
        let alphas: Vec<f64> = self.alphas.val().into_data().iter::<f64>().collect();
        let device = time.device();
        let log = |step: usize| 0.5 * ((1.0 - alphas[step]) / alphas[step]).ln();
        let at = |time: f64| {
            let low = (time as usize).min(alphas.len() - 2);
            let share = time - low as f64;
            let ratio = (log(low) * (1.0 - share) + log(low + 1) * share).exp();
            1.0 / (1.0 + ratio * ratio)
        };
        let found: Vec<f64> = time.into_data().iter::<f64>().map(at).collect();
        let count = found.len();
        Tensor::from_data(TensorData::new(found, [count]), &device)
    }

    pub(crate) fn with_classes(self, classes: usize) -> Self {
        Self {
            classes: Some(classes),
            ..self
        }
    }
}

impl Denoiser for Gaussian {
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        let batch = x.dims()[0];
        let each = |values: Tensor<1>| values.reshape([batch, 1, 1, 1]);
        let alpha = each(self.alpha(time));
        let mean = match &condition.class_labels {
            Some(class) => each(class.clone().float() * 0.01 + self.mean),
            None => Tensor::full([batch, 1, 1, 1], self.mean, &x.device()),
        };
        assert_eq!(condition.class_labels.is_some(), self.classes.is_some());
        let sigma = (alpha.clone().neg() + 1.0).sqrt();
        // E[ε | x] = σ·(x − α·m) / (α²·s² + σ²).
        let variance = alpha.clone() * self.deviation.powi(2) + sigma.clone() * sigma.clone();
        (x - alpha.sqrt() * mean) * sigma / variance
    }

    fn check_shape(&self, _shape: SampleShape) -> Result<()> {
        Ok(())
    }

    fn num_classes(&self) -> Option<usize> {
        self.classes
    }

    /// The last class is the null class.
    fn null_class(&self) -> Option<u32> {
        self.classes.map(|classes| classes as u32 - 1)
    }
}
