"""Opens a pipeline that aigc saved, with diffusers, and samples from the noise beside it; prints how far the images are apart.

    pip install torch diffusers safetensors
    python pipeline.py FOLDER

FOLDER holds `pipeline/`, and `case.safetensors` with `noise` and `images` (both [n, channels, height, width], images in [-1, 1]), and
`classes` where the network is told one. `steps.txt` holds the number of steps.
"""
import json, pathlib, sys
import torch
from diffusers import DDPMPipeline, DDIMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from safetensors.torch import load_file

folder = pathlib.Path(sys.argv[1])
case, steps = load_file(folder / "case.safetensors"), int((folder / "steps.txt").read_text())
x, classes = case["noise"], case.get("classes")
index = json.loads((folder / "pipeline/model_index.json").read_text())
if classes is None:
    pipe = DDPMPipeline.from_pretrained(folder / "pipeline")
    unet, scheduler = pipe.unet, pipe.scheduler
else:
    # diffusers' own pipelines tell a UNet2DModel no class, so its parts are opened.
    unet = UNet2DModel.from_pretrained(folder / "pipeline/unet")
    scheduler = {"DDIMScheduler": DDIMScheduler, "DPMSolverMultistepScheduler": DPMSolverMultistepScheduler}[index["scheduler"][1]].from_pretrained(folder / "pipeline/scheduler")
unet.eval(); scheduler.set_timesteps(steps); x = x * scheduler.init_noise_sigma
with torch.no_grad():
    for t in scheduler.timesteps:
        told = {} if classes is None else {"class_labels": classes}
        x = scheduler.step(unet(scheduler.scale_model_input(x, t), t, **told).sample, t, x).prev_sample
print((x.clamp(-1, 1) - case["images"]).abs().max().item())
