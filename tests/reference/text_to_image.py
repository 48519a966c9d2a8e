"""Images by diffusers of pipelines that this library wrote, for the same seeds.

    pip install torch diffusers transformers
    python text_to_image.py FOLDER

For each directory in FOLDER with a `model_index.json` and a `request.json` (prompt, negative_prompt, seed, n, steps,
width, height): opens it as diffusers does, makes `n` images with one `torch.Generator` each, seeded with `seed + k`, and
prints a line with the directory's name and the bytes of the images in hexadecimal.
"""
import json, os, sys, warnings

warnings.filterwarnings("ignore")
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", DIFFUSERS_VERBOSITY="error", TRANSFORMERS_VERBOSITY="error")
import torch
from diffusers import DiffusionPipeline

for name in sorted(os.listdir(sys.argv[1])):
    folder = os.path.join(sys.argv[1], name)
    path = os.path.join(folder, "request.json")
    if not os.path.exists(path):
        continue
    request = json.load(open(path))
    more = {"safety_checker": None} if "StableDiffusionPipeline" in open(os.path.join(folder, "model_index.json")).read() else {}
    pipeline = DiffusionPipeline.from_pretrained(folder, **more)
    pipeline.set_progress_bar_config(disable=True)
    n = request["n"]
    arguments = {key: request[key] for key in ("prompt", "negative_prompt", "width", "height") if request.get(key) is not None}
    if "max_sequence_length" in request:
        arguments["max_sequence_length"] = request["max_sequence_length"]
    generators = [torch.Generator("cpu").manual_seed(request["seed"] + k) for k in range(n)]
    images = pipeline(num_images_per_prompt=n, num_inference_steps=request["steps"], generator=generators, output_type="pil", **arguments).images
    print(name, b"".join(image.convert("RGB").tobytes() for image in images).hex())
