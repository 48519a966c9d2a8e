//! Schedulers against diffusers, step by step.

use super::Tensors;
use aigc_core::device::device;
use aigc_diffusion::{AnyScheduler, PlanRunner, SamplingPlan, Scheduler};
use burn::tensor::{Tensor, TensorData};
use serde_json::{Map, Value};
use std::{cell::Cell, path::Path};

/// The largest difference, relative to a value or one.
fn error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs() / b.abs().max(1.0))
        .fold(0.0, |worst, error| {
            // A NaN is as wrong as can be.
            if error >= worst {
                error
            } else if error.is_nan() {
                f64::INFINITY
            } else {
                worst
            }
        })
}

/// The scheduler of a case.
fn scheduler(json: &Value) -> AnyScheduler {
    let mut config: Map<String, Value> = json["config"].as_object().expect("a config").clone();
    config.insert("_class_name".into(), json["cls"].clone());
    let opened = AnyScheduler::from_json(&serde_json::to_string(&config).unwrap()).unwrap();
    // A variance in twice the channels is seen by their number.
    assert!(
        opened
            .unused_fields
            .iter()
            .all(|field| field == "variance_type"),
        "{}: {:?}",
        json["cls"],
        opened.unused_fields
    );
    let mut scheduler = opened.into_inner();
    if let (AnyScheduler::Ddim(ddim), Some(eta)) = (&mut scheduler, json["eta"].as_f64()) {
        ddim.eta = eta;
    }
    if let AnyScheduler::FlowEuler(flow) = &mut scheduler {
        flow.image_seq_len = json["image_seq_len"].as_u64().map(|tokens| tokens as usize);
    }
    scheduler
}

/// Holds every number of a case against ours.
pub(crate) fn steps(folder: &Path, json: &Value) {
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let tensors = Tensors(std::fs::read(folder.join("tensors.safetensors")).unwrap());
    let plan = scheduler(json)
        .plan(json["num_inference_steps"].as_u64().unwrap() as usize)
        .unwrap();
    let times = tensors.doubles("timesteps");
    // Whole times are those; times between steps are found from σ, there in 32 bits, which moves
    // them by up to a thousandth.
    let whole = times.iter().all(|time| time.fract() == 0.0);
    let off = plan
        .times()
        .iter()
        .zip(&times)
        .fold(0.0f64, |most, (a, b)| most.max((a - b).abs()));
    let allowed = if whole { 1e-9 } else { 1e-3 };
    assert!(
        plan.len() == times.len() && off <= allowed,
        "{name}: times {:?}, expected {times:?}",
        plan.times()
    );
    if tensors.has("sigmas") {
        // Of samplers over σ/α, and of flows over σ.
        let flow = json["cls"].as_str().unwrap().starts_with("Flow")
            || json["config"]["use_flow_sigmas"] == true;
        let sigma = |plan: &SamplingPlan| -> Vec<f64> {
            let levels = plan.calls.iter().map(|call| call.level);
            levels
                .map(|level| {
                    if flow {
                        level.sigma
                    } else {
                        level.sigma / level.alpha
                    }
                })
                .collect()
        };
        // This class raises to the seventh power in 32 bits; ours are the exact ones.
        let allowed = if json["cls"] == "EDMDPMSolverMultistepScheduler" {
            3e-6
        } else {
            1e-6
        };
        let (found, expected) = (sigma(&plan), tensors.doubles("sigmas"));
        // Theirs end with where the last step leads, and name some twice at the end.
        assert!(
            expected.len() >= found.len(),
            "{name}: {} σ, expected {expected:?}",
            found.len()
        );
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found - expected).abs() <= allowed * expected,
                "{name}: σ {found}, expected {expected}"
            );
        }
    }

    let flex = device("flex").unwrap();
    let load = |name: &str| {
        Tensor::<4>::from_data(
            TensorData::new(tensors.floats(name), tensors.shape::<4>(name)),
            &flex,
        )
    };
    let values = |tensor: &Tensor<4>| {
        tensor
            .to_data()
            .iter::<f32>()
            .map(f64::from)
            .collect::<Vec<_>>()
    };
    let worst = Cell::new(0.0f64);
    let (mut x, mut sampling) = (load("init"), PlanRunner::new(&plan));
    while sampling.call().is_some() {
        let k = sampling.calls_made();
        // Where a large sample becomes a small one, or one is divided by a small α, 32 bits leave
        // the large one's last digits.
        let large = values(&x)
            .iter()
            .fold(0.0f64, |most, value| most.max(value.abs()))
            / plan.calls[k].network_level.alpha.clamp(1e-3, 1.0);
        let digits = large * 2f64.powi(-22);
        let compare = |what: &str, found: &Tensor<4>| {
            let (found, expected) = (values(found), values(&load(&format!("{what}.{k:03}"))));
            if expected.iter().all(|value| value.is_nan()) {
                // UniPC's B(h) = h is infinite where the last step goes to no noise; diffusers
                // multiplies it by 0.
                assert!(
                    json["config"]["solver_type"] == "bh1" && k + 1 == plan.len(),
                    "{name}: {what} {k}"
                );
                assert!(
                    found.iter().all(|value| value.is_finite()),
                    "{name}: {what} {k}"
                );
                return;
            }
            let error = error(&found, &expected);
            worst.set(worst.get().max(error));
            assert!(
                error < 1e-5 + digits,
                "{name}: {what} {k} is off by {error:.1e}"
            );
        };
        compare("scaled", &sampling.input(&x));
        x = sampling
            .step(x, load(&format!("output.{k:03}")), || {
                load(&format!("noise.{k:03}.0"))
            })
            .prev_sample;
        compare("sample", &x);
        // Outputs are those of the stored samples, so an error of ours must not be carried on.
        x = load(&format!("sample.{k:03}"));
    }
    println!("{name}: {:.1e}", worst.get());

    if tensors.has("add_noise.t") {
        let (clean, noise) = (load("add_noise.clean"), load("add_noise.noise"));
        let expected = load("add_noise.out");
        for (i, time) in tensors.doubles("add_noise.t").into_iter().enumerate() {
            // Where a time is asked twice, the second begins a step.
            let at = plan
                .times()
                .iter()
                .rposition(|other| (other - time).abs() < 1e-3)
                .expect("a time of the plan");
            let one = |tensor: &Tensor<4>| tensor.clone().narrow(0, i, 1);
            let error = error(
                &values(&plan.add_noise(at, one(&clean), one(&noise))),
                &values(&one(&expected)),
            );
            assert!(
                error < 1e-5,
                "{name}: noise added at {time} is off by {error:.1e}"
            );
        }
    }
}
