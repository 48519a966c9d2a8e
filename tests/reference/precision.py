"""The difference between a pipeline of diffusers in 32 and in 64 bits, from the stored noise.

    pip install torch diffusers safetensors
    python precision.py FIXTURES/pipelines/DDIMScheduler
"""
import json, pathlib, sys
import diffusers, torch
from safetensors.torch import load_file

directory = pathlib.Path(sys.argv[1]); case, tensors = json.loads((directory / "case.json").read_text()), load_file(directory / "tensors.safetensors")
index = json.loads((directory / "pipeline/model_index.json").read_text())
unet = getattr(diffusers, index["unet"][1]).from_pretrained(directory / "pipeline/unet").double().eval()
scheduler = getattr(diffusers, index["scheduler"][1]).from_pretrained(directory / "pipeline/scheduler")
scheduler.set_timesteps(case["num_inference_steps"]); x = tensors["init"].double()
with torch.no_grad():
    for t in scheduler.timesteps: x = scheduler.step(unet(x, t).sample, t, x).prev_sample
error = (x - tensors["images"]).abs() / tensors["images"].abs().clamp(min=1)
print(error.max().item())
