//! `scheduler_config.json`, as diffusers reads and writes it.

use super::*;
use crate::json::{self, from_map_with_defaults, to_map};
use aigc_core::{Error, json::reject_unsupported, weights::Loaded};
use serde_json::{Map, Value};
use std::path::Path;

macro_rules! schedulers {
    ($($variant:ident($type:ty) = $class:literal, $doc:literal $(, $unsupported:path)?;)*) => {
        /// Any of the schedulers, by the name of its class in diffusers.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum AnyScheduler {
            $(#[doc = $doc] $variant($type),)*
        }

        impl AnyScheduler {
            /// The names of all classes.
            pub const CLASSES: &[&str] = &[$($class),*];

            /// Of each class that has any: fields of options in diffusers that are not implemented
            /// here, and their only supported value.
            const UNSUPPORTED: &[&[(&str, &str)]] = &[$($($unsupported,)?)*];

            /// The name of the class in diffusers.
            pub fn class(&self) -> &'static str {
                match self { $(Self::$variant(_) => $class,)* }
            }

            fn read(class: &str, given: &Map<String, Value>) -> Result<Loaded<Self>> {
                match class {
                    $($class => {
                        Ok(from_map_with_defaults::<$type>(given)?.map(Self::$variant))
                    })*
                    _ => Err(Error::config("_class_name", class, format!("one of {}", Self::CLASSES.join(", ")))),
                }
            }

            fn fields(&self) -> Map<String, Value> {
                match self { $(Self::$variant(scheduler) => to_map(scheduler),)* }
            }
        }

        impl Scheduler for AnyScheduler {
            fn plan(&self, steps: usize) -> Result<SamplingPlan> {
                match self { $(Self::$variant(scheduler) => scheduler.plan(steps),)* }
            }

            fn plan_from(&self, steps: usize, at: usize) -> Result<SamplingPlan> {
                match self { $(Self::$variant(scheduler) => scheduler.plan_from(steps, at),)* }
            }
        }

        $(impl From<$type> for AnyScheduler {
            fn from(scheduler: $type) -> Self {
                Self::$variant(scheduler)
            }
        })*
    };
}

schedulers! {
    Ddpm(DdpmScheduler) = "DDPMScheduler", "Ancestral sampling (DDPM).";
    Ddim(DdimScheduler) = "DDIMScheduler", "DDIM, deterministic or with noise.";
    DdimInverse(DdimInverseScheduler) = "DDIMInverseScheduler", "DDIM from image to noise.";
    Pndm(PndmScheduler) = "PNDMScheduler", "Linear multistep after Runge–Kutta.";
    Lms(LmsScheduler) = "LMSDiscreteScheduler", "Linear multistep over σ.";
    Euler(EulerScheduler) = "EulerDiscreteScheduler", "Euler over σ.";
    EulerAncestral(EulerAncestralScheduler) = "EulerAncestralDiscreteScheduler", "Euler with fresh noise.";
    Heun(HeunScheduler) = "HeunDiscreteScheduler", "Heun over σ.";
    Kdpm2(Kdpm2Scheduler) = "KDPM2DiscreteScheduler", "DPM-Solver-2 over σ.";
    Kdpm2Ancestral(Kdpm2AncestralScheduler) = "KDPM2AncestralDiscreteScheduler", "The same with fresh noise.";
    DpmMultistep(DpmMultistepScheduler) = "DPMSolverMultistepScheduler", "DPM-Solver++, one call a step.",
        dpm_multistep::UNSUPPORTED;
    DpmSinglestep(DpmSinglestepScheduler) = "DPMSolverSinglestepScheduler", "DPM-Solver++, a call for each order.",
        dpm_singlestep::UNSUPPORTED;
    UniPc(UniPcScheduler) = "UniPCMultistepScheduler", "Predictor and corrector.", unipc::UNSUPPORTED;
    Deis(DeisScheduler) = "DEISMultistepScheduler", "Exponential integrator.", deis::UNSUPPORTED;
    EdmEuler(EdmEulerScheduler) = "EDMEulerScheduler", "Euler for EDM's networks.";
    EdmDpm(EdmDpmScheduler) = "EDMDPMSolverMultistepScheduler", "DPM-Solver++ for EDM's networks.";
    CosineDpmMultistep(CosineDpmMultistepScheduler) = "CosineDPMSolverMultistepScheduler",
        "DPM-Solver++ with fresh noise, of Stable Audio.";
    Ipndm(IpndmScheduler) = "IPNDMScheduler", "Linear multistep of Dance Diffusion.";
    FlowEuler(FlowEulerScheduler) = "FlowMatchEulerDiscreteScheduler", "Euler for flows.";
    FlowHeun(FlowHeunScheduler) = "FlowMatchHeunDiscreteScheduler", "Heun for flows.";
    Lcm(LcmScheduler) = "LCMScheduler", "Latent consistency.";
    Tcd(TcdScheduler) = "TCDScheduler", "Trajectory consistency.";
}

impl AnyScheduler {
    /// A scheduler from the fields of its file; missing ones have the class's defaults.
    ///
    /// # Errors
    /// [`Error::Config`] names the field: an unknown class, a value that its field cannot have, or
    /// that is out of range.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        Self::from_json_as(text, None)
    }

    /// The same with the class that an index names, as in diffusers, even if the file names
    /// another.
    fn from_json_as(text: &str, class: Option<&str>) -> Result<Loaded<Self>> {
        let mut given = json::parse_object(text)?;
        let named = match given.remove("_class_name") {
            Some(Value::String(named)) => Some(named),
            _ => None,
        };
        let Some(class) = class.or(named.as_deref()) else {
            return Err(Error::config(
                "_class_name",
                "missing",
                format!("one of {}", Self::CLASSES.join(", ")),
            ));
        };
        let own = Self::read(class, &Map::new())?.into_inner().fields();
        // For files of all classes: diffusers keeps the fields of the class that a scheduler was
        // converted from.
        let mut unsupported = Self::UNSUPPORTED.concat();
        unsupported.retain(|(field, _)| !own.contains_key(*field));
        reject_unsupported(&mut given, &unsupported)?;
        let mut loaded = Self::read(class, &given)?;
        if let Some(named) = named.as_deref().filter(|named| *named != class) {
            loaded.notes.push(format!(
                "model_index.json names {class} and scheduler_config.json {named}: {class} is used"
            ));
        }
        loaded.value.validate()?;
        Ok(loaded)
    }

    /// A scheduler of another class with the fields that both have, as diffusers'
    /// `Scheduler.from_config(other.config)`; the others have the class's defaults.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown class, or values that it does not support.
    pub fn to_class(&self, class: &str) -> Result<Self> {
        let scheduler = Self::read(class, &self.fields())?.into_inner();
        scheduler.validate()?;
        Ok(scheduler)
    }

    /// Computes a plan, to find values out of range: of ten steps, or of one where ten are too
    /// many.
    fn validate(&self) -> Result<()> {
        // Errors of the number of steps are not the file's; the size of the image is unknown yet.
        let of_steps = |error: &Error| match error {
            Error::InvalidArgument { argument, .. } => argument == "steps",
            Error::Config { field, .. } => field == "steps_offset",
            _ => false,
        };
        let mut tried = self.plan(10);
        if tried.as_ref().is_err_and(of_steps) {
            tried = self.plan(1);
        }
        match tried {
            Err(Error::InvalidArgument { argument, .. }) if argument == "steps" => Ok(()),
            Err(Error::Config { field, .. }) if field == "image_seq_len" => Ok(()),
            other => other.map(drop),
        }
    }

    /// The scheduler's configuration as diffusers writes it.
    pub fn to_json(&self) -> String {
        let mut fields = self.fields();
        fields.insert("_class_name".into(), self.class().into());
        let text = serde_json::to_string_pretty(&fields).expect("plain values");
        text.replace("\"-Infinity\"", "-Infinity")
    }

    /// Opens `scheduler_config.json`, or the directory that has it.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Data`] names file and field.
    pub fn from_pretrained(path: impl AsRef<Path>) -> Result<Loaded<Self>> {
        let path = path.as_ref();
        match path.is_dir() {
            true => Self::open(&path.join("scheduler_config.json"), None),
            false => Self::open(path, None),
        }
    }

    /// The same for a scheduler whose class is known from elsewhere.
    pub(crate) fn open(path: &Path, class: Option<&str>) -> Result<Loaded<Self>> {
        json::read_file(path, |text| Self::from_json_as(text, class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Loaded<AnyScheduler>> {
        AnyScheduler::from_json(text)
    }

    #[test]
    fn every_class_round_trips_and_has_a_plan() {
        for class in AnyScheduler::CLASSES {
            let opened = read(&format!("{{\"_class_name\": \"{class}\"}}")).unwrap();
            let again = read(&opened.value.to_json()).unwrap();
            assert_eq!((&again.value, again.value.class()), (&opened.value, *class));
            assert!(
                again.unused_fields.is_empty(),
                "{class}: {:?}",
                again.unused_fields
            );
            let plan = opened.value.plan(10).unwrap();
            assert!(plan.len() >= 10 && plan.init_noise_sigma > 0.0, "{class}");
            let finite = |sum: &LinearCombination| sum.iter().all(|(_, weight)| weight.is_finite());
            assert!(
                plan.calls
                    .iter()
                    .all(|call| finite(&call.update) && finite(&call.corrector)),
                "{class}"
            );
            assert!(
                opened.value.plan(0).is_err() && opened.value.plan(1_000_000).is_err(),
                "{class}"
            );
        }
    }

    /// A thousand integer timesteps of a thousand, one of them twice.
    #[test]
    fn duplicate_timesteps_are_an_error() {
        let opened = read(r#"{"_class_name": "DPMSolverMultistepScheduler"}"#).unwrap();
        let message = opened.value.plan(1000).unwrap_err().to_string();
        assert!(message.contains("`steps` is 1000 (call"), "{message}");
    }

    /// The ten steps by which values are checked need not fit.
    #[test]
    fn scheduler_with_few_training_steps_opens() {
        let opened = read(
            r#"{"_class_name": "DDIMScheduler", "num_train_timesteps": 10, "steps_offset": 1}"#,
        )
        .unwrap();
        assert!(opened.value.plan(5).is_ok() && opened.value.plan(10).is_err());
    }

    /// There are not 1,001 integer timesteps an integer apart.
    #[test]
    fn leading_spacing_rejects_too_many_steps() {
        for class in [
            "DPMSolverMultistepScheduler",
            "UniPCMultistepScheduler",
            "DEISMultistepScheduler",
        ] {
            let opened = read(&format!(
                r#"{{"_class_name": "{class}", "timestep_spacing": "leading"}}"#
            ))
            .unwrap();
            let message = opened.value.plan(1000).unwrap_err().to_string();
            assert!(
                message.contains("`steps` is 1000, expected less than 1000"),
                "{message}"
            );
        }
    }

    /// The last σ twice: the step there is empty, and has no slope.
    #[test]
    fn empty_last_step_has_finite_weights() {
        for options in [
            r#""_class_name": "DPMSolverMultistepScheduler", "solver_order": 3, "use_karras_sigmas": true"#,
            r#""_class_name": "EDMDPMSolverMultistepScheduler", "solver_order": 3, "solver_type": "heun""#,
            r#""_class_name": "UniPCMultistepScheduler", "solver_order": 3, "lower_order_final": false, "use_karras_sigmas": true"#,
        ] {
            read(&format!(
                "{{{options}, \"final_sigmas_type\": \"sigma_min\"}}"
            ))
            .unwrap()
            .value
            .plan(20)
            .unwrap();
        }
    }

    #[test]
    fn python_json_is_read() {
        let text = r#"{"_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.99", "lambda_min_clipped": -Infinity,
            "beta_schedule": "squaredcos_cap_v2", "solver_order": 3, "an_option_of_tomorrow": {"a": [1]}}"#;
        let opened = read(text).unwrap();
        assert_eq!(opened.unused_fields, ["an_option_of_tomorrow"]);
        let AnyScheduler::DpmMultistep(scheduler) = &opened.value else {
            panic!("{opened:?}")
        };
        assert_eq!(
            (scheduler.solver_order, scheduler.lambda_min_clipped),
            (3, f64::NEG_INFINITY)
        );
        assert_eq!(scheduler.noise.beta_schedule, crate::BetaSchedule::Cosine);
        assert!(
            opened
                .value
                .to_json()
                .contains("\"lambda_min_clipped\": -Infinity")
        );
    }

    #[test]
    fn to_class_keeps_shared_fields() {
        let options = r#""beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction""#;
        for class in AnyScheduler::CLASSES {
            let others = ["EDM", "Flow", "Cosine", "IPNDM"];
            if others.iter().any(|other| class.starts_with(other)) {
                continue;
            }
            let opened = read(&format!(r#"{{"_class_name": "{class}", {options}}}"#)).unwrap();
            let ddpm = opened.to_class("DDPMScheduler").unwrap();
            let AnyScheduler::Ddpm(ddpm) = ddpm else {
                panic!("{ddpm:?}")
            };
            assert_eq!(ddpm.noise.beta_schedule, crate::BetaSchedule::Cosine);
            assert_eq!(ddpm.prediction_type, crate::PredictionType::V);
        }
        let message = AnyScheduler::from(DdimScheduler::default())
            .to_class("MagicScheduler")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`_class_name` is MagicScheduler"),
            "{message}"
        );
    }

    #[test]
    fn errors_name_file_and_field() {
        for (text, expected) in [
            ("[]", "expected an object of fields"),
            ("{\"_class_name\": \"DDPM", "not JSON"),
            ("{}", "`_class_name` is missing"),
            (
                r#"{"_class_name": "MagicScheduler"}"#,
                "`_class_name` is MagicScheduler, expected one of DDPMScheduler",
            ),
            (
                r#"{"_class_name": "DDIMScheduler", "beta_start": "small"}"#,
                "`beta_start` is \"small\"",
            ),
            (
                r#"{"_class_name": "DDIMScheduler", "num_train_timesteps": -5}"#,
                "`num_train_timesteps` is -5",
            ),
            (
                r#"{"_class_name": "DDIMScheduler", "prediction_type": "magic"}"#,
                "`prediction_type` is \"magic\"",
            ),
            (
                r#"{"_class_name": "LMSDiscreteScheduler", "timestep_spacing": 1}"#,
                "`timestep_spacing` is 1",
            ),
            (
                r#"{"_class_name": "UniPCMultistepScheduler", "sigma_max": 10.0}"#,
                "`sigma_max` is 10",
            ),
            (
                r#"{"_class_name": "DEISMultistepScheduler", "use_dynamic_shifting": true}"#,
                "`use_dynamic_shifting` is true, expected false",
            ),
            (
                r#"{"_class_name": "DDIMScheduler", "shift_terminal": 0.1}"#,
                "`shift_terminal` is 0.1, expected null",
            ),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scheduler_config.json");
        assert!(
            AnyScheduler::from_pretrained(&path)
                .unwrap_err()
                .to_string()
                .contains("scheduler_config.json")
        );
        std::fs::write(
            &path,
            r#"{"_class_name": "DDIMScheduler", "steps_offset": 0.5}"#,
        )
        .unwrap();
        let message = AnyScheduler::from_pretrained(&path)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("scheduler_config.json") && message.contains("`steps_offset` is 0.5"),
            "{message}"
        );
        // Values of the right kind that make no sense, alone or together, and one that is missing
        // until there is an image.
        for (text, expected) in [
            (
                r#"{"_class_name": "DDIMScheduler", "clip_sample_range": -1.0}"#,
                "`clip_sample_range` is -1",
            ),
            (
                r#"{"_class_name": "UniPCMultistepScheduler", "solver_order": 9}"#,
                "`solver_order` is 9",
            ),
            (
                r#"{"_class_name": "UniPCMultistepScheduler", "flow_shift": 0.0}"#,
                "`flow_shift` is 0",
            ),
            (
                r#"{"_class_name": "DDIMScheduler", "prediction_type": "flow_prediction"}"#,
                "`prediction_type`",
            ),
            (
                r#"{"_class_name": "DDIMInverseScheduler", "prediction_type": "sample"}"#,
                "`prediction_type` is sample",
            ),
            (
                r#"{"_class_name": "DDIMScheduler", "beta_end": 2.0}"#,
                "`beta_end` is 2",
            ),
            (
                r#"{"_class_name": "DDIMScheduler", "steps_offset": 1000}"#,
                "`steps_offset` is 1000",
            ),
            (
                r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": 100.0}"#,
                "`lambda_min_clipped` is 100",
            ),
            (
                r#"{"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true, "sigma_min": 200.0}"#,
                "`sigma_min` is 200",
            ),
            (
                r#"{"_class_name": "EDMEulerScheduler", "sigma_min": 0.0}"#,
                "`sigma_min` is 0",
            ),
            (
                r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": true}"#,
                "`image_seq_len`",
            ),
            (
                r#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}"#,
                "`final_sigmas_type`",
            ),
            (
                r#"{"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": true, "timestep_spacing": "trailing"}"#,
                "`prediction_type`",
            ),
        ] {
            let error = match read(text) {
                Ok(opened) if expected == "`image_seq_len`" => opened.value.plan(20).unwrap_err(),
                other => other.unwrap_err(),
            };
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
