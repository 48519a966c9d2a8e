//! The defaults of diffusers' pipelines, which differ between the kinds of requests.

use super::PipelineFamily;

/// What images are made from. diffusers has a class for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Noise.
    Text,
    /// An image.
    Image,
    /// An image, of which a part is painted anew.
    Mask,
}

/// Defaults of a request.
pub(crate) struct Defaults {
    pub(crate) num_inference_steps: usize,
    pub(crate) guidance_scale: f64,
    /// Side of the latents, if the network's configuration has none.
    pub(crate) latent_side: usize,
    /// How much of an image is replaced.
    pub(crate) strength: f64,
    /// Factor of what ControlNets add.
    pub(crate) conditioning_scale: f64,
    /// Tokens of T5's prompts.
    pub(crate) max_sequence_length: usize,
}

impl PipelineFamily {
    /// The defaults for a task, with or without ControlNets. `class` is that of the pipeline.
    pub(crate) fn defaults(self, class: &str, task: Task, has_controlnet: bool) -> Defaults {
        let base = Defaults {
            num_inference_steps: 50,
            guidance_scale: 7.5,
            latent_side: 64,
            strength: if task == Task::Mask { 1.0 } else { 0.8 },
            conditioning_scale: match task {
                Task::Text => 1.0,
                Task::Image => 0.8,
                Task::Mask => 0.5,
            },
            max_sequence_length: 256,
        };
        match self {
            Self::StableDiffusion => base,
            Self::StableDiffusionXl => Defaults {
                guidance_scale: if task == Task::Mask && !has_controlnet {
                    7.5
                } else {
                    5.0
                },
                latent_side: 128,
                strength: match task {
                    Task::Mask => 0.9999,
                    _ if has_controlnet => 0.8,
                    _ => 0.3,
                },
                conditioning_scale: if task == Task::Image { 0.8 } else { 1.0 },
                ..base
            },
            Self::LatentConsistency => Defaults {
                num_inference_steps: 4,
                guidance_scale: 8.5,
                ..base
            },
            Self::StableDiffusion3 => Defaults {
                num_inference_steps: if task == Task::Text { 28 } else { 50 },
                guidance_scale: 7.0,
                latent_side: 128,
                strength: 0.6,
                ..base
            },
            Self::Flux => Defaults {
                num_inference_steps: 28,
                guidance_scale: if task == Task::Text { 3.5 } else { 7.0 },
                latent_side: 128,
                strength: 0.6,
                max_sequence_length: 512,
                ..base
            },
            Self::PixArt => Defaults {
                num_inference_steps: 20,
                guidance_scale: 4.5,
                latent_side: 128,
                max_sequence_length: if class == "PixArtSigmaPipeline" {
                    300
                } else {
                    120
                },
                ..base
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_each_pipeline_of_diffusers() {
        use PipelineFamily::*;
        // Steps, guidance scale, strength and factor of ControlNets.
        for (family, task, control, expected) in [
            (StableDiffusion, Task::Text, true, [50.0, 7.5, 0.8, 1.0]),
            (StableDiffusion, Task::Image, true, [50.0, 7.5, 0.8, 0.8]),
            (StableDiffusion, Task::Mask, true, [50.0, 7.5, 1.0, 0.5]),
            (StableDiffusionXl, Task::Image, false, [50.0, 5.0, 0.3, 0.8]),
            (StableDiffusionXl, Task::Image, true, [50.0, 5.0, 0.8, 0.8]),
            (
                StableDiffusionXl,
                Task::Mask,
                false,
                [50.0, 7.5, 0.9999, 1.0],
            ),
            (
                StableDiffusionXl,
                Task::Mask,
                true,
                [50.0, 5.0, 0.9999, 1.0],
            ),
            (StableDiffusion3, Task::Image, false, [50.0, 7.0, 0.6, 0.8]),
            (Flux, Task::Mask, false, [28.0, 7.0, 0.6, 0.5]),
            (LatentConsistency, Task::Image, false, [4.0, 8.5, 0.8, 0.8]),
        ] {
            let found = family.defaults("", task, control);
            let found = [
                found.num_inference_steps as f64,
                found.guidance_scale,
                found.strength,
                found.conditioning_scale,
            ];
            assert_eq!(found, expected, "{family:?} {task:?} {control}");
        }
        let text = |family: PipelineFamily| family.defaults("", Task::Text, false);
        assert_eq!(text(Flux).guidance_scale, 3.5);
        assert_eq!(text(StableDiffusion3).num_inference_steps, 28);
    }
}
