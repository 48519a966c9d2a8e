//! Low-rank adapters of transformers: written here, and loaded into whole pipelines.

use crate::{
    differences::tensors_apart,
    stages::latents,
    tiny_pipelines::{open, request, tiny},
};
use aigc_core::{
    device::device,
    params::{ParamMapper, map_params},
    rng::{InitWeights, Rng},
};
use aigc_diffusion::AnyDenoiser;
use aigc_pipelines::{
    adapters::{Component, LoraConfig, LoraForm, LoraScales, LoraWriter, add_adapter},
    text_to_image::{LoraMode, PipelineOptions, TextToImagePipeline},
};
use burn::{module::Param, tensor::Tensor};

/// Draws both factors of adapters: one of them is zero at first.
struct Draw(Rng);

impl ParamMapper for Draw {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if ![".lora.a", ".lora.b"].iter().any(|end| path.ends_with(end)) {
            return param;
        }
        let value = param.val();
        let drawn = self.0.normal(value.dims(), &value.device()) * 0.3;
        param.map(|_| drawn)
    }
}

#[test]
fn adapters_of_transformers_change_images_in_every_form() {
    for name in ["tiny-sd3", "tiny-flux-dev", "tiny-pixart"] {
        let (Some(mut pipeline), Some(from)) = (open(name), tiny(name)) else {
            return;
        };
        let flex = device("flex").unwrap();
        let network = AnyDenoiser::from_pretrained(from.join("transformer"), &flex);
        let config = LoraConfig {
            rank: 2,
            alpha: 3.0,
            targets: LoraConfig::attention().targets,
        };
        let fresh = add_adapter(network.unwrap().into_inner(), &config).unwrap();
        let adapted = map_params(fresh.init_weights(1), &mut Draw(Rng::new(2)));
        let writer = LoraWriter::new()
            .with(&adapted, Component::Transformer)
            .unwrap();
        let mut options = PipelineOptions::default();
        options.max_sequence_length = Some(40);
        // Guidance would enlarge differences of rounding.
        let request = request().with_guidance_scale(1.0);
        let run = |pipeline: &TextToImagePipeline| latents(pipeline, &request, &options);
        let plain = run(&pipeline);
        let dir = tempfile::tempdir().unwrap();
        let mut found = vec![];
        for form in [LoraForm::Peft, LoraForm::Diffusers, LoraForm::Kohya] {
            let path = dir.path().join(format!("{form:?}.safetensors"));
            writer.save(&path, form).unwrap();
            for mode in [LoraMode::Merged, LoraMode::Attached] {
                let mut with = |scale: f64| {
                    let file = [(path.clone(), LoraScales::new(scale))];
                    let reports = pipeline.load_loras(&file, mode).unwrap();
                    let report = &reports[0];
                    let complete = report.is_complete() && !report.applied.is_empty();
                    assert!(complete, "{name} {form:?}: {report:?}");
                    let latents = run(&pipeline);
                    pipeline.unload_adapters().unwrap();
                    latents
                };
                found.push(with(1.0));
                if form == LoraForm::Peft {
                    let none = tensors_apart(with(0.0), plain.clone());
                    assert_eq!(none, 0.0, "{name} {mode:?}");
                }
            }
        }
        let changed = tensors_apart(found[0].clone(), plain.clone());
        assert!(changed > 1e-3, "{name}: {changed:.1e}");
        for other in &found[1..] {
            let off = tensors_apart(other.clone(), found[0].clone());
            assert!(off < 1e-4, "{name}: {off:.1e}");
        }
        assert_eq!(tensors_apart(run(&pipeline), plain), 0.0, "{name}");
    }
}
