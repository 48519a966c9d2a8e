//! Diffusion of sound: networks, solvers and pipelines against diffusers.

use aigc_core::{data::SampleShape, device::device, nn::RotaryEmbeddingConfig, rng::InitWeights};
use aigc_diffusion::{
    AnyScheduler, DiffusionSampler, FinalSigmas, IpndmScheduler, PlanRunner, Scheduler,
    models::{StableAudioDitModel, UNet1dConfig, UNet1dModel},
};
use aigc_pipelines::{
    audio::{AudioRequest, DanceDiffusionPipeline, DanceDiffusionRequest, StableAudioPipeline},
    text_to_image::NoiseStream,
};
use aigc_tests::fixtures::{Case, every};
use burn::tensor::{Device, Tensor};
use serde_json::Value;
use std::collections::{BTreeSet, VecDeque};

/// Compares outputs of a case, and knows which ones are left.
struct Outputs<'a> {
    case: &'a Case,
    left: BTreeSet<String>,
}

impl<'a> Outputs<'a> {
    fn of(case: &'a Case) -> Self {
        let outputs = case.json["outputs"].as_array().expect("outputs");
        let names = outputs.iter().filter_map(Value::as_str);
        Self {
            case,
            left: names.map(str::to_owned).collect(),
        }
    }

    fn compare<const D: usize>(&mut self, name: &str, found: &Tensor<D>) {
        self.case.assert_within(name, found);
        self.left.remove(name);
    }

    fn compare_values(&mut self, name: &str, found: &[f64]) {
        self.case.assert_values_within(name, &[found.len()], found);
        self.left.remove(name);
    }

    /// Fails unless all outputs were compared.
    fn finish(self) {
        assert!(
            self.left.is_empty(),
            "{}: {:?}",
            self.case.name(),
            self.left
        );
    }
}

fn is(kind: &'static str) -> impl Fn(&Case) -> bool {
    move |case| case.text("kind") == kind
}

#[test]
fn unet_1d() {
    let flex = device("flex").unwrap();
    every(is("UNet1DModel"), |case| {
        let network = UNet1dModel::from_pretrained(case.dir.join("model"), &flex).unwrap();
        assert!(network.warnings().is_empty(), "{:?}", network.warnings());
        let found = network.forward(case.float("sample"), case.float("timestep"));
        let mut outputs = Outputs::of(case);
        outputs.compare("output", &found);
        outputs.finish();
    });
}

#[test]
fn stable_audio_transformer() {
    let flex = device("flex").unwrap();
    every(is("StableAudioDiTModel"), |case| {
        let network = StableAudioDitModel::from_pretrained(case.dir.join("model"), &flex).unwrap();
        assert!(network.warnings().is_empty(), "{:?}", network.warnings());
        let sample = case.float::<3>("sample");
        let frames = sample.dims()[2];
        let found = network.forward(
            sample,
            case.float("timestep"),
            case.float("encoder_hidden_states"),
            case.float::<3>("global_hidden_states").squeeze_dim::<2>(1),
        );
        let mut outputs = Outputs::of(case);
        outputs.compare("output", &found);
        // What turns a pair (1, 0) are its cosine and its sine.
        let (width, positions) = (network.config().rotary_width(), frames + 1);
        let table = RotaryEmbeddingConfig {
            d_head: width,
            max_positions: positions,
            theta: 10_000.0,
        };
        let shape = [1, 1, positions, width / 2];
        let pairs = vec![
            Tensor::<4>::ones(shape, &flex),
            Tensor::<4>::zeros(shape, &flex),
        ];
        let turned = table.init(&flex).forward(Tensor::cat(pairs, 3), 0);
        for (i, name) in ["rotary.cos", "rotary.sin"].into_iter().enumerate() {
            let part = turned.clone().narrow(3, i * width / 2, width / 2);
            let part = part.reshape([positions, width / 2]);
            outputs.compare(name, &Tensor::cat(vec![part.clone(), part], 1));
        }
        outputs.finish();
    });
}

/// The solver of a case, and the σ after its last step.
fn solver(case: &Case) -> (AnyScheduler, f64) {
    let mut fields = case.json["config"].as_object().expect("a config").clone();
    fields.insert("_class_name".into(), case.json["kind"].clone());
    let opened = AnyScheduler::from_json(&Value::from(fields).to_string()).unwrap();
    assert!(
        opened.unused_fields.is_empty(),
        "{:?}",
        opened.unused_fields
    );
    let last = match &opened.value {
        AnyScheduler::CosineDpmMultistep(solver) => match solver.edm.final_sigmas_type {
            FinalSigmas::SigmaMin => solver.edm.sigma_min,
            _ => 0.0,
        },
        _ => 0.0,
    };
    (opened.into_inner(), last)
}

#[test]
fn solvers() {
    let is_solver = |case: &Case| {
        ["CosineDPMSolverMultistepScheduler", "IPNDMScheduler"].contains(&case.text("kind"))
    };
    every(is_solver, |case| {
        let (scheduler, last) = solver(case);
        let steps = case.json["steps"].as_u64().expect("steps") as usize;
        let plan = scheduler.plan(steps).unwrap();
        assert_eq!(plan.len(), steps);
        let mut outputs = Outputs::of(case);
        outputs.compare_values("timesteps", &plan.times());
        if case.has("sigmas") {
            let sigmas = plan.calls.iter().map(|call| call.level.sigma);
            let sigmas: Vec<f64> = sigmas.chain([last]).collect();
            outputs.compare_values("sigmas", &sigmas);
        }
        let mut x = case.float::<3>("init") * plan.init_noise_sigma;
        let mix = case.float::<2>("mix").unsqueeze::<3>();
        let mut runner = PlanRunner::new(&plan);
        while runner.call().is_some() {
            let k = runner.calls_made();
            let input = runner.input(&x);
            outputs.compare(&format!("scaled.{k:03}"), &input);
            let [batch, channels, _] = input.dims();
            let mixed = mix.clone().expand([batch, channels, channels]);
            let output = mixed.matmul(input.clone()).tanh() + (input * 3.0).sin() * 0.1;
            outputs.compare(&format!("output.{k:03}"), &output);
            // Errors are not carried on: both the output and the sample are the stored ones.
            let stored = case.float::<3>(&format!("output.{k:03}"));
            let noise = || case.float::<3>(&format!("noise.{k:03}"));
            x = runner.step(x, stored, noise).prev_sample;
            outputs.compare(&format!("sample.{k:03}"), &x);
            x = case.float(&format!("sample.{k:03}"));
        }
        outputs.finish();
    });
}

/// The noise of a case, in the order in which it was drawn.
struct Stored(VecDeque<Tensor<3>>);

impl Stored {
    fn of(case: &Case, first: &str) -> Self {
        let names = case.names().into_iter();
        let steps = names.filter(|name| name.starts_with("noise."));
        let all = [first.to_owned()].into_iter().chain(steps);
        Self(all.map(|name| case.float(&name)).collect())
    }
}

impl NoiseStream for Stored {
    fn normal(&mut self, shape: [usize; 4], _: &Device) -> Tensor<4> {
        self.0.pop_front().expect("a draw").reshape(shape)
    }
}

#[test]
fn stable_audio_pipeline() {
    let flex = device("flex").unwrap();
    every(is("StableAudioPipeline"), |case| {
        let pipeline = StableAudioPipeline::from_pretrained(case.dir.join("pipeline"), &flex);
        let pipeline = pipeline.unwrap();
        assert!(
            pipeline.unused_tensors.is_empty(),
            "{:?}",
            pipeline.warnings()
        );
        let config = &case.json["config"];
        let mut request = AudioRequest::new(case.text("prompt"))
            .with_seconds(config["seconds"].as_f64().expect("seconds"))
            .with_guidance_scale(config["guidance_scale"].as_f64().expect("a scale"))
            .with_num_inference_steps(config["steps"].as_u64().expect("steps") as usize);
        request.negative_prompt = case.json["negative_prompt"].as_str().map(Into::into);
        let job = pipeline.prepare(&request).unwrap();
        let conditions = pipeline.encode_prompt(&job).unwrap();
        let mut noise = Stored::of(case, "latents");
        let count = case.float::<3>("latents").dims()[0];
        let latents = pipeline
            .denoise(&job, &conditions, count, &mut noise)
            .unwrap();
        let mut outputs = Outputs::of(case);
        outputs.compare("final_latents", &latents);
        let sounds = pipeline.decode(&job, latents).unwrap();
        let sounds = sounds.iter().map(|sound| sound.to_tensor(&flex));
        outputs.compare("audio", &Tensor::stack::<3>(sounds.collect(), 0));
        outputs.finish();
    });
}

#[test]
fn dance_diffusion_pipeline() {
    let flex = device("flex").unwrap();
    every(is("DanceDiffusionPipeline"), |case| {
        let pipeline = DanceDiffusionPipeline::from_pretrained(case.dir.join("pipeline"), &flex);
        let pipeline = pipeline.unwrap();
        assert!(
            pipeline.unused_tensors.is_empty(),
            "{:?}",
            pipeline.warnings()
        );
        let config = &case.json["config"];
        let request = DanceDiffusionRequest::default()
            .with_n(case.float::<3>("init").dims()[0])
            .with_seconds(config["seconds"].as_f64().expect("seconds"))
            .with_num_inference_steps(config["steps"].as_u64().expect("steps") as usize);
        let mut noise = Stored::of(case, "init");
        let sounds = pipeline.denoise(&request, &mut noise).unwrap();
        let sounds = sounds.iter().map(|sound| sound.to_tensor(&flex));
        let mut outputs = Outputs::of(case);
        outputs.compare("audio", &Tensor::stack::<3>(sounds.collect(), 0));
        outputs.finish();
    });
}

/// The sampler of this library takes networks over time, whatever the number of sounds at once.
#[test]
fn sampler_takes_networks_over_time() {
    let flex = device("flex").unwrap();
    let network = UNet1dConfig::small(1, 64).init(&flex).unwrap();
    let network = network.init_weights(1);
    let shape = SampleShape::new(&[1, 64]);
    let sample = |batch_size| {
        DiffusionSampler::<_, 3>::new(&network, &IpndmScheduler::default(), 4, shape, &flex)
            .unwrap()
            .with_batch_size(batch_size)
            .sample(3, 7)
            .unwrap()
            .values
    };
    let (together, alone) = (sample(3), sample(1));
    assert_eq!(together.dims(), [3, 1, 64]);
    let apart = (together - alone).abs().max().into_scalar::<f32>();
    assert!(apart < 1e-3, "{apart}");
    // Sounds whose length it cannot halve are refused.
    let shape = SampleShape::new(&[1, 60]);
    let sampler =
        DiffusionSampler::<_, 3>::new(&network, &IpndmScheduler::default(), 4, shape, &flex);
    let message = sampler.unwrap_err().to_string();
    assert!(message.contains("a multiple of 8 samples"), "{message}");
}
