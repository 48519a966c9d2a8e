"""Opens in diffusers what aigc saved, and prints for each the difference between the outputs.

    pip install torch diffusers safetensors
    python pipeline.py DIR

DIR/pipelines/NAME   `pipeline/`, and `case.safetensors` with `noise` and `images` (in [0, 1]), and
                     `classes` if the network is class-conditional; `steps.txt` has the number of
                     steps. If diffusers has a pipeline class for it, that is run.
DIR/networks/NAME    a network's directory, and `case.safetensors` with `x`, `time`, `output`, and
                     `classes` or `tokens`, `text_embeds` and `time_ids`; of a ControlNet, `image`,
                     and as output what it adds to the map in the middle
DIR/schedulers/NAME  a scheduler's directory; diffusers has to read the values written there
"""
import json, pathlib, sys
import diffusers, torch
from diffusers.pipelines.ddpm import pipeline_ddpm
from safetensors.torch import load_file

directory = pathlib.Path(sys.argv[1])
report = lambda name, apart: print(name, float(apart))
component = lambda path, config: getattr(diffusers, json.loads((path / config).read_text())["_class_name"]).from_pretrained(path)


def pipeline(path):
    case, steps = load_file(path / "case.safetensors"), int((path / "steps.txt").read_text())
    index = json.loads((path / "pipeline/model_index.json").read_text())
    if index["_class_name"] == "DDPMPipeline":
        assert "classes" not in case, "diffusers' pipeline has no classes"
        pipeline_ddpm.randn_tensor = lambda *_, **__: case["noise"]
        pipe = diffusers.DDPMPipeline.from_pretrained(path / "pipeline"); pipe.set_progress_bar_config(disable=True)
        images = torch.from_numpy(pipe(batch_size=len(case["noise"]), num_inference_steps=steps, output_type="np").images).permute(0, 3, 1, 2)
    else:
        unet, scheduler = component(path / "pipeline/unet", "config.json").eval(), component(path / "pipeline/scheduler", "scheduler_config.json")
        scheduler.set_timesteps(steps); x = case["noise"] * scheduler.init_noise_sigma
        condition = dict(class_labels=case["classes"]) if "classes" in case else {}
        for t in scheduler.timesteps: x = scheduler.step(unet(scheduler.scale_model_input(x, t), t, **condition).sample, t, x).prev_sample
        images = (x / 2 + 0.5).clamp(0, 1)
    report(path.name, (images - case["images"]).abs().max())


def network(path):
    case, model = load_file(path / "case.safetensors"), component(path, "config.json").eval()
    condition = dict(class_labels=case["classes"]) if "classes" in case else {}
    if "tokens" in case: condition["encoder_hidden_states"] = case["tokens"]
    added = {field: case[field] for field in ("text_embeds", "time_ids") if field in case}
    if added: condition["added_cond_kwargs"] = added
    if "image" in case: condition["controlnet_cond"] = case["image"]
    output = model(case["x"], timestep=case["time"], **condition)
    output = output.mid_block_res_sample if "image" in case else output.sample
    report(path.name, (output - case["output"]).abs().max())


def scheduler(path):
    written = json.loads((path / "scheduler_config.json").read_text()); read = component(path, "scheduler_config.json").config
    other = {field: (value, read.get(field)) for field, value in written.items() if not field.startswith("_") and read.get(field) != value}
    assert not other, f"{path.name}: {other}"
    report(path.name, 0)


with torch.no_grad():
    for kind in (pipeline, network, scheduler):
        for path in sorted((directory / f"{kind.__name__}s").iterdir()): kind(path)
