//! An image network set in motion.

use super::{
    adapter::MotionAdapter,
    frames,
    hook::{HookedUNet, LayerHook, NoHook},
};
use crate::denoiser::{Conditioning, Denoiser};
use aigc_core::{Error, Result, data::SampleShape};
use burn::{module::Module, tensor::Tensor};

/// A U-net of images with motion modules after its layers: a network over videos (Guo et al. 2023,
/// <https://arxiv.org/abs/2307.04725>). The U-net sees each frame alone; in motion modules, each
/// pixel attends to itself in other frames.
///
/// New motion modules change nothing, so a trained image model makes frames that do not move yet.
/// [`freeze_unet`](Self::freeze_unet) leaves only the motion modules to be trained:
///
/// ```
/// # use aigc_core::{data::ImageShape, device::device};
/// # use aigc_diffusion::{Denoiser, UNet2dConfig, models::*};
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let images = UNet2dConfig::small(ImageShape::new(1, 16, 16), Some(10)).init(&device)?;
/// let motion = MotionAdapterConfig::for_layout(&images.layout()).init(&device)?;
/// let videos = WithMotion::new(images, motion)?.freeze_unet();
/// assert_eq!(Denoiser::<5>::num_classes(&videos), Some(10));
/// # Ok(()) }
/// ```
#[derive(Module, Debug)]
pub struct WithMotion<N: HookedUNet> {
    pub(super) unet: N,
    pub(super) motion: MotionAdapter,
    is_still: bool,
}

impl<N: HookedUNet> WithMotion<N> {
    /// Joins a U-net and motion modules.
    ///
    /// # Errors
    /// [`Error::Config`] names a field of the motion modules that does not fit the U-net, with both
    /// values.
    pub fn new(unet: N, motion: MotionAdapter) -> Result<Self> {
        motion.config().check_layout(&unet.layout())?;
        Ok(Self {
            unet,
            motion,
            is_still: false,
        })
    }

    /// The image network.
    pub fn unet(&self) -> &N {
        &self.unet
    }

    /// The motion modules.
    pub fn motion_adapter(&self) -> &MotionAdapter {
        &self.motion
    }

    /// Image network and motion modules.
    pub fn into_parts(self) -> (N, MotionAdapter) {
        (self.unet, self.motion)
    }

    /// With the motion modules on or off. Without them, each frame is that of the image network,
    /// bit for bit.
    pub fn with_motion_enabled(self, enabled: bool) -> Self {
        Self {
            is_still: !enabled,
            ..self
        }
    }

    /// Excludes the image network from training: only motion modules are trained.
    pub fn freeze_unet(self) -> Self {
        Self {
            unet: self.unet.no_grad(),
            ..self
        }
    }
}

impl<N: HookedUNet> Denoiser<5> for WithMotion<N> {
    fn predict(&self, x: Tensor<5>, time: Tensor<1>, condition: &Conditioning<5>) -> Tensor<5> {
        let (x, count) = frames::into_batch(x);
        let time = frames::times(time, count);
        let condition = frames::conditions(condition, count);
        let moving = self.motion.hook(count);
        let hook: &dyn LayerHook = match self.is_still {
            true => &NoHook,
            false => &moving,
        };
        let output = self.unet.predict_hooked(x, time, &condition, hook);
        frames::out_of_batch(output, count)
    }

    fn check_shape(&self, shape: SampleShape) -> Result<()> {
        let image = image_shape(shape)?;
        self.check_frames(shape)?;
        self.unet.check_shape(image)
    }

    fn check_trainable(&self, shape: SampleShape) -> Result<()> {
        let image = image_shape(shape)?;
        self.check_frames(shape)?;
        self.unet.check_trainable(image)
    }

    fn check_min_time(&self, min: f64) -> Result<()> {
        self.unet.check_min_time(min)
    }

    fn cross_attention_dim(&self) -> Option<usize> {
        self.unet.cross_attention_dim()
    }

    fn takes_input_ids(&self) -> bool {
        self.unet.takes_input_ids()
    }

    fn class_embedding_dim(&self) -> Option<usize> {
        self.unet.class_embedding_dim()
    }

    fn num_classes(&self) -> Option<usize> {
        self.unet.num_classes()
    }

    fn null_class(&self) -> Option<u32> {
        self.unet.null_class()
    }

    fn needs_from_pipeline(&self) -> Option<&'static str> {
        self.unet.needs_from_pipeline()
    }

    fn extra_input_channels(&self) -> usize {
        self.unet.extra_input_channels()
    }

    fn supports_self_conditioning(&self, channels: usize) -> bool {
        self.unet.supports_self_conditioning(channels)
    }
}

impl<N: HookedUNet> WithMotion<N> {
    /// Without motion modules, any number of frames will do.
    fn check_frames(&self, shape: SampleShape) -> Result<()> {
        match self.is_still {
            true => Ok(()),
            false => self.motion.config().check_frames(shape.dims()[1]),
        }
    }
}

/// The shape of a frame of a video of this shape.
///
/// # Errors
/// [`Error::InvalidArgument`] if it is not the shape of a video, or an axis is 0.
pub(crate) fn image_shape(shape: SampleShape) -> Result<SampleShape> {
    match *shape.dims() {
        [channels, frames, height, width] if ![frames, height, width].contains(&0) => {
            Ok(SampleShape::new(&[channels, height, width]))
        }
        _ => Err(Error::argument(
            "shape",
            shape,
            "videos: channels, frames, height and width, each at least 1",
        )),
    }
}
