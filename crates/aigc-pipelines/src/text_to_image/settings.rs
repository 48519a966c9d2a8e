//! Options as settings of a result, and back, so that an image can be made again.

use super::{
    job::Job,
    options::{NoiseSource, PipelineOptions, SizeConditions, Tiling},
    pipeline::TextToImagePipeline,
    png::ImageSettings,
    prompt::PromptSyntax,
};
use aigc_core::{Error, Result, json, weights::WeightDtype};
use aigc_diffusion::AnyScheduler;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::str::FromStr;

/// Samplers of Stable Diffusion's web interface, and their classes in diffusers.
const SAMPLERS: [(&str, &str); 11] = [
    ("Euler a", "EulerAncestralDiscreteScheduler"),
    ("Euler", "EulerDiscreteScheduler"),
    ("LMS", "LMSDiscreteScheduler"),
    ("Heun", "HeunDiscreteScheduler"),
    ("DPM2 a", "KDPM2AncestralDiscreteScheduler"),
    ("DPM2", "KDPM2DiscreteScheduler"),
    ("DPM++ 2M", "DPMSolverMultistepScheduler"),
    ("DDIM", "DDIMScheduler"),
    ("PLMS", "PNDMScheduler"),
    ("UniPC", "UniPCMultistepScheduler"),
    ("LCM", "LCMScheduler"),
];

impl TextToImagePipeline {
    /// Settings of a job beyond those of a request: options that are not the defaults, and what
    /// else decides how images come out.
    pub(crate) fn settings(&self, job: &Job) -> Vec<(String, String)> {
        let (options, default) = (&job.options, PipelineOptions::default());
        let scheduler = options.scheduler.as_ref().unwrap_or(&self.scheduler);
        let mut settings = vec![];
        let mut add = |name: &str, value: Option<String>| {
            settings.extend(value.map(|value| (name.to_owned(), value)));
        };
        add("scheduler", Some(job.scheduler.to_owned()));
        let lines = scheduler.to_json();
        let lines: Vec<&str> = lines.lines().map(str::trim).collect();
        add("scheduler_config", Some(lines.concat()));
        add("noise_source", choice(&options.noise_source));
        add(
            "prompt_syntax",
            other(&options.prompt_syntax, &default.prompt_syntax),
        );
        add("tiling", other(&options.tiling, &default.tiling));
        let number = |value: f64, default: f64| (value != default).then(|| value.to_string());
        add("eta", number(options.eta, default.eta));
        add(
            "guidance_rescale",
            number(options.guidance_rescale, default.guidance_rescale),
        );
        add(
            "true_cfg_scale",
            number(options.true_cfg_scale, default.true_cfg_scale),
        );
        add(
            "denoising_start",
            options.denoising_start.map(|part| part.to_string()),
        );
        add(
            "denoising_end",
            options.denoising_end.map(|part| part.to_string()),
        );
        add("clip_skip", options.clip_skip.map(|skip| skip.to_string()));
        let length = options.max_sequence_length;
        add(
            "max_sequence_length",
            length.map(|length| length.to_string()),
        );
        add("prompt_2", options.prompt_2.clone());
        add("prompt_3", options.prompt_3.clone());
        add("negative_prompt_2", options.negative_prompt_2.clone());
        add("negative_prompt_3", options.negative_prompt_3.clone());
        let sizes = &options.size_conditions;
        add(
            "size_conditions",
            (*sizes != SizeConditions::default()).then(|| text(sizes)),
        );
        add(
            "control",
            (!options.control.is_empty()).then(|| text(&options.control)),
        );
        add("guess_mode", options.guess_mode.then(|| "true".into()));
        let bins = options.use_resolution_binning;
        add("use_resolution_binning", (!bins).then(|| "false".into()));

        // What cannot be written.
        add(
            "embeddings",
            options.embeddings.as_ref().map(|_| "given".into()),
        );
        let own_image = options
            .control
            .iter()
            .any(|control| control.image.is_some());
        add("control_images", own_image.then(|| "given".into()));
        let vae = self.parts.vae.source();
        add("vae", vae.is_none().then(|| "given".into()));
        let dtype = self.parts.denoiser.source().map(|source| source.dtype);
        let dtype = dtype.filter(|dtype| *dtype != WeightDtype::F32);
        add("dtype", dtype.map(|dtype| format!("{dtype:?}")));
        settings.extend(self.adapters.iter().cloned());
        settings
    }

    /// The options with which the request of [`settings`](ImageSettings) makes the image again:
    /// those of the file, and the defaults; batch size, limit on the number of images, previews,
    /// and the guidance scale and steps of a file without them are the pipeline's own. Adapters,
    /// and what [`missing_inputs`](ImageSettings::missing_inputs) names, have to be given again.
    ///
    /// A file of Stable Diffusion's web interface has the name of a sampler, which becomes a
    /// scheduler with the noise schedule of this pipeline.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names a setting that has no such value.
    pub fn options_of(&self, settings: &ImageSettings) -> Result<PipelineOptions> {
        let mut options = PipelineOptions {
            batch_size: self.options.batch_size,
            max_images: self.options.max_images,
            preview: self.options.preview.clone(),
            guidance_scale: self.options.guidance_scale,
            num_inference_steps: self.options.num_inference_steps,
            ..PipelineOptions::default()
        };
        let [mut config, mut class, mut sampler] = [None; 3];
        for (name, value) in &settings.settings {
            let some = || Some(value.clone());
            match name.as_str() {
                "scheduler_config" => config = Some(value),
                "scheduler" => class = Some(value),
                "sampler" => sampler = Some(value),
                "noise_source" => options.noise_source = chosen::<NoiseSource>(name, value)?,
                "prompt_syntax" => options.prompt_syntax = chosen::<PromptSyntax>(name, value)?,
                "tiling" => options.tiling = chosen::<Tiling>(name, value)?,
                "eta" => options.eta = parsed(name, value)?,
                "guidance_rescale" => options.guidance_rescale = parsed(name, value)?,
                "true_cfg_scale" => options.true_cfg_scale = parsed(name, value)?,
                "denoising_start" => options.denoising_start = Some(parsed(name, value)?),
                "denoising_end" => options.denoising_end = Some(parsed(name, value)?),
                "clip_skip" => options.clip_skip = Some(parsed(name, value)?),
                "max_sequence_length" => {
                    options.max_sequence_length = Some(parsed(name, value)?);
                }
                "prompt_2" => options.prompt_2 = some(),
                "prompt_3" => options.prompt_3 = some(),
                "negative_prompt_2" => options.negative_prompt_2 = some(),
                "negative_prompt_3" => options.negative_prompt_3 = some(),
                "size_conditions" => options.size_conditions = object(name, value)?,
                "control" => options.control = object(name, value)?,
                "guess_mode" => options.guess_mode = parsed(name, value)?,
                "use_resolution_binning" => {
                    options.use_resolution_binning = parsed(name, value)?;
                }
                // Adapters and the like are not options.
                _ => {}
            }
        }
        options.scheduler = match (config, class, sampler) {
            (Some(config), ..) => {
                let read = AnyScheduler::from_json(config);
                let read = read.map_err(|error| named("scheduler_config", config, error));
                Some(read?.into_inner())
            }
            (None, Some(class), _) => Some(self.scheduler_of(class)?),
            (None, None, Some(sampler)) => Some(self.sampler_of(sampler)?),
            (None, None, None) => None,
        };
        Ok(options)
    }

    /// The scheduler of a class, with the fields of the pipeline's own.
    fn scheduler_of(&self, class: &str) -> Result<AnyScheduler> {
        let read = self.scheduler.to_class(class);
        read.map_err(|error| named("scheduler", class, error))
    }

    /// The scheduler of a sampler of the web interface.
    fn sampler_of(&self, name: &str) -> Result<AnyScheduler> {
        let (sampler, is_karras) = match name.strip_suffix(" Karras") {
            Some(sampler) => (sampler, true),
            None => (name, false),
        };
        let Some((_, class)) = SAMPLERS.iter().find(|(known, _)| *known == sampler) else {
            let known = SAMPLERS.map(|(known, _)| known).join(", ");
            let expected = format!("one of {known}, with or without Karras behind it");
            return Err(Error::argument("sampler", name, expected));
        };
        let scheduler = self.scheduler_of(class)?;
        if !is_karras {
            return Ok(scheduler);
        }
        let mut fields = json::parse_object(&scheduler.to_json())?;
        fields.insert("use_karras_sigmas".into(), true.into());
        let read = AnyScheduler::from_json(&Value::Object(fields).to_string());
        Ok(read
            .map_err(|error| named("sampler", name, error))?
            .into_inner())
    }
}

/// The name of a choice in files.
fn choice(choice: &impl Serialize) -> Option<String> {
    let value = serde_json::to_value(choice).ok()?;
    value.as_str().map(str::to_owned)
}

/// The name of a choice, unless it is the default.
fn other<T: Serialize + PartialEq>(value: &T, default: &T) -> Option<String> {
    choice(value).filter(|_| value != default)
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain values")
}

/// A choice by its name.
fn chosen<T: DeserializeOwned>(name: &str, value: &str) -> Result<T> {
    let read = serde_json::from_value(Value::String(value.into()));
    read.map_err(|error| Error::argument(name, value, error.to_string()))
}

fn parsed<T: FromStr>(name: &str, value: &str) -> Result<T> {
    let expected = format!("a value of {}", std::any::type_name::<T>());
    value
        .parse()
        .map_err(|_| Error::argument(name, value, expected))
}

fn object<T: DeserializeOwned>(name: &str, value: &str) -> Result<T> {
    serde_json::from_str(value).map_err(|error| Error::argument(name, value, error.to_string()))
}

/// Names the setting in an error of its value.
fn named(name: &str, value: &str, error: Error) -> Error {
    Error::argument(name, value, format!("a scheduler ({error})"))
}
