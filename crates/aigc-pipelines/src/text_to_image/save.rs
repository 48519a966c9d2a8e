//! Writing a pipeline's directory.

use super::{
    families::PipelineFamily, index::INDEX, model_defaults::ModelDefaults,
    pipeline::TextToImagePipeline,
};
use aigc_core::{Error, Result, checkpoint::write_atomic};
use aigc_diffusion::{AnyScheduler, Denoiser};
use serde_json::{Map, Value, json};
use std::path::Path;

impl TextToImagePipeline {
    /// Writes a directory that diffusers and [`from_pretrained`](Self::from_pretrained) open:
    /// all parts, with what adapters changed in them, and the defaults of the model: guidance scale
    /// and steps of its [options](Self::options), if they have any, else those of the directory it
    /// was opened from. The index is written last.
    ///
    /// # Errors
    /// [`Error::Config`] for defaults that make no sense;
    /// [`Error::Unsupported`] for a ControlNet of a family for which diffusers has no pipeline with
    /// one; [`Error::Io`] or [`Error::Weights`] if a file cannot be read or written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        let mut index = Map::new();
        index.insert("_class_name".into(), self.saved_class()?.into());
        let defaults = ModelDefaults::of_options(&self.options).or(self.model_defaults);
        defaults.write(&mut index)?;
        let mut part = |name: &str, library: &str, class: &str| {
            index.insert(name.into(), json!([library, class]));
        };
        let places = PipelineFamily::ENCODERS
            .iter()
            .zip(PipelineFamily::TOKENIZERS);
        for (which, (encoder, tokenizer)) in places.enumerate() {
            if let Some(model) = &self.parts.encoders[which] {
                let model = model.get()?;
                model.save_pretrained(&dir.join(encoder))?;
                part(encoder, "transformers", model.class());
            }
            if let Some(files) = &self.parts.tokenizers[which] {
                files.save_pretrained(&dir.join(tokenizer))?;
                part(tokenizer, "transformers", files.class());
            }
        }
        let component = self.network.component();
        self.parts
            .denoiser
            .get()?
            .save_pretrained(dir.join(component))?;
        part(component, "diffusers", self.network.class());
        let vae = self.parts.vae.get()?;
        vae.save_pretrained(&dir.join("vae"))?;
        part("vae", "diffusers", vae.class());
        for (which, controlnet) in self.parts.controlnets.iter().enumerate() {
            // The names of diffusers' `MultiControlNetModel`.
            let name = match which {
                0 => "controlnet".to_owned(),
                which => format!("controlnet_{which}"),
            };
            controlnet.get()?.save_pretrained(dir.join(name))?;
        }
        match self.parts.controlnets.len() {
            0 => {}
            1 => part("controlnet", "diffusers", "ControlNetModel"),
            _ => part("controlnet", "diffusers", "MultiControlNetModel"),
        }
        let scheduler = dir.join("scheduler").join("scheduler_config.json");
        std::fs::create_dir_all(dir.join("scheduler")).map_err(Error::io(dir))?;
        write_atomic(&scheduler, self.scheduler.to_json().as_bytes())?;
        part(
            "scheduler",
            "diffusers",
            AnyScheduler::class(&self.scheduler),
        );
        if let Some(safety) = &self.safety {
            safety.save_pretrained(dir)?;
            part(
                "safety_checker",
                "stable_diffusion",
                "StableDiffusionSafetyChecker",
            );
            part("feature_extractor", "transformers", "CLIPImageProcessor");
        }
        self.other_entries(&mut index);
        let text = serde_json::to_string_pretty(&index).expect("plain values");
        write_atomic(&dir.join(INDEX), text.as_bytes())
    }

    /// The class that opens the parts.
    fn saved_class(&self) -> Result<String> {
        let without = self.class.replace("ControlNet", "");
        if self.parts.controlnets.is_empty() {
            return Ok(without);
        }
        if self.class != without {
            return Ok(self.class.clone());
        }
        match self.family {
            PipelineFamily::StableDiffusion => Ok("StableDiffusionControlNetPipeline".into()),
            PipelineFamily::StableDiffusionXl => Ok("StableDiffusionXLControlNetPipeline".into()),
            other => Err(Error::unsupported(
                format!("writing a ControlNet of {other:?}"),
                "TextToImagePipeline::save_pretrained",
                "write it with its own `save_pretrained`",
            )),
        }
    }

    /// Parts that are missing, and settings.
    fn other_entries(&self, index: &mut Map<String, Value>) {
        let missing: &[&str] = match self.family {
            PipelineFamily::StableDiffusion | PipelineFamily::LatentConsistency => {
                let has = self.safety.is_some();
                index.insert("requires_safety_checker".into(), has.into());
                &["safety_checker", "feature_extractor", "image_encoder"]
            }
            PipelineFamily::StableDiffusionXl => {
                let zeros = self.force_zeros_for_empty_prompt;
                index.insert("force_zeros_for_empty_prompt".into(), zeros.into());
                if self.requires_aesthetics_score {
                    index.insert("requires_aesthetics_score".into(), true.into());
                }
                // Refiners have no first encoder.
                &[
                    "image_encoder",
                    "feature_extractor",
                    "text_encoder",
                    "tokenizer",
                ]
            }
            PipelineFamily::StableDiffusion3 => &[
                "image_encoder",
                "feature_extractor",
                "text_encoder_3",
                "tokenizer_3",
            ],
            PipelineFamily::Flux => &["image_encoder", "feature_extractor"],
            PipelineFamily::PixArt => &[],
        };
        for name in missing {
            index.entry(*name).or_insert(json!([null, null]));
        }
    }
}
