"""Sampling by diffusers' schedulers, step by step, for `tests/parity.rs`; with options that are
easily implemented wrongly.

    pip install torch diffusers safetensors scipy
    python diffusion.py ../fixtures/diffusion [--seed 0]

One directory per case: `case.json` has class, options and steps; `tensors.safetensors` has the
times (and σ), and for each call the network's input (`scaled`), its output (`output`), the noise
drawn, and the sample after the step.
"""
import argparse, importlib, json, os
import diffusers, torch
from safetensors.torch import save_file

P = argparse.ArgumentParser(); P.add_argument("out"); P.add_argument("--seed", type=int, default=0); A = P.parse_args()
BASE, LATENT = {}, dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
SIGMAS = [dict(use_karras_sigmas=True), dict(use_exponential_sigmas=True), dict(use_beta_sigmas=True)]
SPACINGS = [dict(timestep_spacing="leading", steps_offset=1), dict(timestep_spacing="trailing")]
ENDS = dict(final_sigmas_type="sigma_min")
CASES = {
    "DDPMScheduler": [dict(variance_type="fixed_small_log"), dict(variance_type="learned_range"), dict(timestep_spacing="linspace"), dict(clip_sample_range=0.5, steps_offset=3), dict(beta_schedule="laplace")],
    "DDIMScheduler": [dict(set_alpha_to_one=False), dict(thresholding=True, sample_max_value=3.0, dynamic_thresholding_ratio=0.9), dict(_eta=0.7, timestep_spacing="trailing"), dict(beta_schedule="squaredcos_cap_v2", timestep_spacing="linspace")],
    "DDIMInverseScheduler": [dict(timestep_spacing="trailing"), dict(prediction_type="v_prediction", set_alpha_to_one=False)],
    "PNDMScheduler": [dict(set_alpha_to_one=True, timestep_spacing="trailing"), dict(skip_prk_steps=True, timestep_spacing="linspace", prediction_type="v_prediction")],
    "LMSDiscreteScheduler": SIGMAS[1:] + SPACINGS + [dict(prediction_type="sample"), dict(prediction_type="v_prediction")],
    "EulerDiscreteScheduler": SIGMAS[2:] + SPACINGS + [ENDS, dict(interpolation_type="log_linear"), dict(timestep_type="continuous", prediction_type="v_prediction"), dict(use_karras_sigmas=True, sigma_min=0.1, sigma_max=10.0), dict(prediction_type="sample")],
    "EulerAncestralDiscreteScheduler": SPACINGS[1:] + [dict(rescale_betas_zero_snr=True, prediction_type="v_prediction")],
    "HeunDiscreteScheduler": SIGMAS[1:] + SPACINGS + [dict(clip_sample=True), dict(prediction_type="v_prediction")],
    "KDPM2DiscreteScheduler": SIGMAS[1:] + SPACINGS + [dict(prediction_type="v_prediction")],
    "KDPM2AncestralDiscreteScheduler": SIGMAS + SPACINGS,
    "DPMSolverMultistepScheduler": SIGMAS[2:] + SPACINGS + [ENDS, dict(solver_order=3, lower_order_final=False), dict(solver_order=3, solver_type="heun", **ENDS), dict(algorithm_type="sde-dpmsolver++", solver_type="heun"),
        dict(algorithm_type="sde-dpmsolver", **ENDS), dict(algorithm_type="sde-dpmsolver", solver_type="heun", **ENDS), dict(algorithm_type="dpmsolver", solver_order=3, thresholding=True, **ENDS), dict(lambda_min_clipped=-2.0), dict(use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction"),
        dict(beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing"), dict(rescale_betas_zero_snr=True, prediction_type="v_prediction"), dict(variance_type="learned_range")],
    "DPMSolverSinglestepScheduler": SIGMAS[1:] + [ENDS, dict(solver_order=3, solver_type="heun", **ENDS), dict(solver_order=2, solver_type="heun"), dict(solver_order=1), dict(algorithm_type="dpmsolver", solver_order=3, **ENDS), dict(algorithm_type="sde-dpmsolver++"), dict(lambda_min_clipped=-2.0, lower_order_final=True)],
    "UniPCMultistepScheduler": SIGMAS[1:] + SPACINGS + [ENDS, dict(predict_x0=False, solver_order=3, **ENDS), dict(predict_x0=False, solver_type="bh1", **ENDS), dict(disable_corrector=[0, 3]), dict(use_flow_sigmas=True, flow_shift=2.0, prediction_type="flow_prediction"), dict(use_karras_sigmas=True, **ENDS)],
    "DEISMultistepScheduler": SIGMAS + SPACINGS + [dict(solver_order=3, lower_order_final=False), dict(solver_order=1), dict(thresholding=True), dict(use_flow_sigmas=True, prediction_type="flow_prediction")],
    "EDMEulerScheduler": [ENDS, dict(sigma_data=1.0, rho=5.0)],
    "EDMDPMSolverMultistepScheduler": [ENDS, dict(algorithm_type="sde-dpmsolver++", solver_type="heun"), dict(sigma_schedule="exponential"), dict(euler_at_final=True, prediction_type="v_prediction")],
    "FlowMatchEulerDiscreteScheduler": SIGMAS + [dict(shift_terminal=0.1), dict(invert_sigmas=True)],
    "LCMScheduler": [dict(clip_sample=True), dict(original_inference_steps=100, prediction_type="v_prediction"), dict(thresholding=True)],
    "TCDScheduler": [dict(original_inference_steps=100, prediction_type="v_prediction")],
}


def run(name, options, steps, seed):
    options = dict(options); eta, tokens = options.pop("_eta", None), options.pop("_tokens", None); draw = torch.Generator().manual_seed(seed)
    s = getattr(diffusers, name)(**options); drawn = []
    # As pipelines compute it from the number of tokens of an image.
    s.set_timesteps(steps, **({} if tokens is None else dict(mu=0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256))))
    def noise(shape, **_): drawn.append(torch.randn(tuple(shape), generator=draw)); return drawn[-1]
    importlib.import_module(type(s).__module__).randn_tensor = noise
    x = torch.randn(1, 3, 3, 3, generator=draw) * getattr(s, "init_noise_sigma", 1.0); mix = torch.randn(3, 3, generator=draw) * 0.5
    T = dict(init=x, timesteps=torch.as_tensor(s.timesteps).double())
    if hasattr(s, "sigmas"): T["sigmas"] = torch.as_tensor(s.sigmas).double()
    for k, t in enumerate(s.timesteps):
        scaled = s.scale_model_input(x, t) if hasattr(s, "scale_model_input") else x
        output = torch.tanh(torch.einsum("ij,bjhw->bihw", mix, scaled) + 0.1 * k)
        if options.get("variance_type") == "learned_range": output = torch.cat([output, torch.tanh(2 * scaled)], 1)
        if options.get("variance_type") == "learned": output = torch.cat([output, torch.sigmoid(2 * scaled) * 0.01], 1)
        del drawn[:]; x = s.step(output, t, x, **({} if eta is None else dict(eta=eta))).prev_sample
        T |= {f"scaled.{k:03}": scaled, f"output.{k:03}": output, f"sample.{k:03}": x} | {f"noise.{k:03}.{j}": z for j, z in enumerate(drawn)}
    return T, dict(kind="scheduler", cls=name, config=options, eta=eta, image_seq_len=tokens, num_inference_steps=steps, seed=A.seed, diffusers=diffusers.__version__)


# Numbers of steps with which a timestep depends on how a half is rounded.
ROUNDED = [("DPMSolverMultistepScheduler", {}, 30), ("DDIMScheduler", dict(timestep_spacing="linspace"), 27), ("DDPMScheduler", dict(timestep_spacing="trailing"), 48)]
# After all others, so that their numbers and seeds do not change.
MORE = [("DDPMScheduler", dict(variance_type="learned")), ("FlowMatchHeunDiscreteScheduler", {}), ("FlowMatchHeunDiscreteScheduler", dict(shift=3.0)),
    ("FlowMatchEulerDiscreteScheduler", dict(use_dynamic_shifting=True, _tokens=1024)), ("FlowMatchEulerDiscreteScheduler", dict(use_dynamic_shifting=True, time_shift_type="linear", _tokens=3000))]
jobs = []
for name, cases in CASES.items():
    rounded = [(options, steps) for other, options, steps in ROUNDED if other == name]
    jobs += [(name, options, None) for options in cases] + [(name, options, steps) for options, steps in rounded]
jobs += [(name, options, None) for name, options in MORE]; counts = {}
for index, (name, options, steps) in enumerate(jobs, 1):
    i = counts[name] = counts.get(name, -1) + 1
    T, case = run(name, {**(LATENT if "EDM" not in name and "Flow" not in name and "beta_schedule" not in options else BASE), **options}, steps or (5, 7, 16)[index % 3], 1000 * A.seed + index)
    directory = f"{A.out}/{name}-{i}"; os.makedirs(directory, exist_ok=True); json.dump(case, open(f"{directory}/case.json", "w"), indent=1)
    save_file({n: t.detach().contiguous().clone() for n, t in T.items()}, f"{directory}/tensors.safetensors")
