//! `scheduler_config.json`, as diffusers reads and writes it.

use super::*;
use crate::json::{self, from_map_with_defaults, to_map};
use aigc_core::Error;
use serde_json::{Map, Value};
use std::path::Path;

/// A scheduler and what its file says besides.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// The scheduler.
    pub scheduler: AnyScheduler,
    /// Fields of the file that are not known here and change nothing, in order.
    pub ignored: Vec<String>,
}

macro_rules! schedulers {
    ($($variant:ident($type:ty) = $class:literal, $doc:literal;)*) => {
        /// Any of the schedulers, by the name of its class in diffusers.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum AnyScheduler {
            $(#[doc = $doc] $variant($type),)*
        }

        impl AnyScheduler {
            /// The names of all classes.
            pub const CLASSES: &[&str] = &[$($class),*];

            /// The name of the class in diffusers.
            pub fn class(&self) -> &'static str {
                match self { $(Self::$variant(_) => $class,)* }
            }

            fn read(class: &str, given: &Map<String, Value>) -> Result<Opened> {
                match class {
                    $($class => {
                        let (scheduler, ignored) = from_map_with_defaults::<$type>(given)?;
                        Ok(Opened { scheduler: Self::$variant(scheduler), ignored })
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
        }

        $(impl From<$type> for AnyScheduler {
            fn from(scheduler: $type) -> Self {
                Self::$variant(scheduler)
            }
        })*
    };
}

schedulers! {
    Ddpm(DdpmScheduler) = "DDPMScheduler", "Ancestral sampling.";
    Ddim(DdimScheduler) = "DDIMScheduler", "With as much noise as one likes.";
    DdimInverse(DdimInverseScheduler) = "DDIMInverseScheduler", "From image to noise.";
    Pndm(PndmScheduler) = "PNDMScheduler", "Linear multistep after Runge–Kutta.";
    Lms(LmsScheduler) = "LMSDiscreteScheduler", "Linear multistep over σ.";
    Euler(EulerScheduler) = "EulerDiscreteScheduler", "Euler over σ.";
    EulerAncestral(EulerAncestralScheduler) = "EulerAncestralDiscreteScheduler", "Euler with fresh noise.";
    Heun(HeunScheduler) = "HeunDiscreteScheduler", "Heun over σ.";
    Kdpm2(Kdpm2Scheduler) = "KDPM2DiscreteScheduler", "DPM-Solver-2 over σ.";
    Kdpm2Ancestral(Kdpm2AncestralScheduler) = "KDPM2AncestralDiscreteScheduler", "The same with fresh noise.";
    DpmMultistep(DpmMultistepScheduler) = "DPMSolverMultistepScheduler", "DPM-Solver++, one call a step.";
    DpmSinglestep(DpmSinglestepScheduler) = "DPMSolverSinglestepScheduler", "DPM-Solver++, a call for each order.";
    UniPc(UniPcScheduler) = "UniPCMultistepScheduler", "Predictor and corrector.";
    Deis(DeisScheduler) = "DEISMultistepScheduler", "Exponential integrator.";
    EdmEuler(EdmEulerScheduler) = "EDMEulerScheduler", "Euler for EDM's networks.";
    EdmDpm(EdmDpmScheduler) = "EDMDPMSolverMultistepScheduler", "DPM-Solver++ for EDM's networks.";
    FlowEuler(FlowEulerScheduler) = "FlowMatchEulerDiscreteScheduler", "Euler for flows.";
    FlowHeun(FlowHeunScheduler) = "FlowMatchHeunDiscreteScheduler", "Heun for flows.";
    Lcm(LcmScheduler) = "LCMScheduler", "Latent consistency.";
    Tcd(TcdScheduler) = "TCDScheduler", "Trajectory consistency.";
}

impl AnyScheduler {
    /// A scheduler from the fields of its file; what is missing has the class's default.
    ///
    /// # Errors
    /// [`Error::Config`] names the field: a class that is not known, a value that cannot be one of
    /// its field, or is out of range.
    pub fn from_json(text: &str) -> Result<Opened> {
        let mut given = json::parse_object(text)?;
        let Some(Value::String(class)) = given.remove("_class_name") else {
            return Err(Error::config(
                "_class_name",
                "missing",
                format!("one of {}", Self::CLASSES.join(", ")),
            ));
        };
        let opened = Self::read(&class, &given)?;
        // Not all that is unknown changes nothing.
        let unmade = [
            "use_dynamic_shifting",
            "shift_terminal",
            "sigma_min",
            "sigma_max",
            "solver_p",
        ];
        for field in opened
            .ignored
            .iter()
            .filter(|field| unmade.contains(&field.as_str()))
        {
            if !matches!(given[field], Value::Null | Value::Bool(false)) {
                return Err(Error::config(
                    field.as_str(),
                    &given[field],
                    format!("null or false for {class}"),
                ));
            }
        }
        opened.scheduler.validate()?;
        Ok(opened)
    }

    /// Makes plans, to find what is out of range; a few steps, and one where there are not so many.
    fn validate(&self) -> Result<()> {
        // What may be wrong with the number of steps, and not with the file; and the size of an
        // image that is not known yet.
        let of_steps = |field: &str| ["steps", "steps_offset"].contains(&field);
        let mut tried = self.plan(10);
        if matches!(&tried, Err(Error::Config { field, .. }) if of_steps(field)) {
            tried = self.plan(1);
        }
        match tried {
            Err(Error::Config { field, .. }) if field == "steps" || field == "image_seq_len" => {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// As diffusers writes it.
    pub fn to_json(&self) -> String {
        let mut fields = self.fields();
        fields.insert("_class_name".into(), self.class().into());
        let text = serde_json::to_string_pretty(&fields).expect("plain values");
        text.replace("\"-Infinity\"", "-Infinity")
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Data`] names file and field.
    pub fn open(path: impl AsRef<Path>) -> Result<Opened> {
        json::read_file(path.as_ref(), Self::from_json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Opened> {
        AnyScheduler::from_json(text)
    }

    #[test]
    fn every_class_reads_what_it_writes_and_has_a_plan() {
        for class in AnyScheduler::CLASSES {
            let opened = read(&format!("{{\"_class_name\": \"{class}\"}}")).unwrap();
            let again = read(&opened.scheduler.to_json()).unwrap();
            assert_eq!(
                (&again.scheduler, again.scheduler.class()),
                (&opened.scheduler, *class)
            );
            assert!(again.ignored.is_empty(), "{class}: {:?}", again.ignored);
            let plan = opened.scheduler.plan(10).unwrap();
            assert!(plan.len() >= 10 && plan.init_noise_sigma > 0.0, "{class}");
            let finite = |sum: &LinearCombination| sum.iter().all(|(_, weight)| weight.is_finite());
            assert!(
                plan.calls
                    .iter()
                    .all(|call| finite(&call.update) && finite(&call.corrector)),
                "{class}"
            );
            assert!(
                opened.scheduler.plan(0).is_err() && opened.scheduler.plan(1_000_000).is_err(),
                "{class}"
            );
        }
    }

    /// A thousand whole times of a thousand, one of them twice.
    #[test]
    fn a_stop_that_comes_twice_is_refused() {
        let opened = read(r#"{"_class_name": "DPMSolverMultistepScheduler"}"#).unwrap();
        let message = opened.scheduler.plan(1000).unwrap_err().to_string();
        assert!(message.contains("`steps` is 1000, and call"), "{message}");
    }

    /// Ten steps, by which values are checked, need not fit.
    #[test]
    fn a_scheduler_of_few_steps_is_read() {
        let opened = read(
            r#"{"_class_name": "DDIMScheduler", "num_train_timesteps": 10, "steps_offset": 1}"#,
        )
        .unwrap();
        assert!(opened.scheduler.plan(5).is_ok() && opened.scheduler.plan(10).is_err());
    }

    /// So many whole times that are a whole number apart, and one more, there are not.
    #[test]
    fn leading_times_stay_apart() {
        for class in [
            "DPMSolverMultistepScheduler",
            "UniPCMultistepScheduler",
            "DEISMultistepScheduler",
        ] {
            let opened = read(&format!(
                r#"{{"_class_name": "{class}", "timestep_spacing": "leading"}}"#
            ))
            .unwrap();
            let message = opened.scheduler.plan(1000).unwrap_err().to_string();
            assert!(
                message.contains("`steps` is 1000, expected less than 1000"),
                "{message}"
            );
        }
    }

    /// The last σ twice: nothing is left to be done there, and no slope to be taken.
    #[test]
    fn a_step_that_goes_nowhere_has_finite_weights() {
        for options in [
            r#""_class_name": "DPMSolverMultistepScheduler", "solver_order": 3, "use_karras_sigmas": true"#,
            r#""_class_name": "EDMDPMSolverMultistepScheduler", "solver_order": 3, "solver_type": "heun""#,
            r#""_class_name": "UniPCMultistepScheduler", "solver_order": 3, "lower_order_final": false, "use_karras_sigmas": true"#,
        ] {
            read(&format!(
                "{{{options}, \"final_sigmas_type\": \"sigma_min\"}}"
            ))
            .unwrap()
            .scheduler
            .plan(20)
            .unwrap();
        }
    }

    #[test]
    fn what_python_writes_is_read() {
        let text = r#"{"_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.99", "lambda_min_clipped": -Infinity,
            "beta_schedule": "squaredcos_cap_v2", "solver_order": 3, "an_option_of_tomorrow": {"a": [1]}}"#;
        let opened = read(text).unwrap();
        assert_eq!(opened.ignored, ["an_option_of_tomorrow"]);
        let AnyScheduler::DpmMultistep(scheduler) = &opened.scheduler else {
            panic!("{opened:?}")
        };
        assert_eq!(
            (scheduler.solver_order, scheduler.lambda_min_clipped),
            (3, f64::NEG_INFINITY)
        );
        assert_eq!(scheduler.noise.beta_schedule, crate::BetaSchedule::Cosine);
        assert!(
            opened
                .scheduler
                .to_json()
                .contains("\"lambda_min_clipped\": -Infinity")
        );
    }

    #[test]
    fn mistakes_name_file_and_field() {
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
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scheduler_config.json");
        assert!(
            AnyScheduler::open(&path)
                .unwrap_err()
                .to_string()
                .contains("scheduler_config.json")
        );
        std::fs::write(
            &path,
            r#"{"_class_name": "DDIMScheduler", "steps_offset": 0.5}"#,
        )
        .unwrap();
        let message = AnyScheduler::open(&path).unwrap_err().to_string();
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
                Ok(opened) if expected == "`image_seq_len`" => {
                    opened.scheduler.plan(20).unwrap_err()
                }
                other => other.unwrap_err(),
            };
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
