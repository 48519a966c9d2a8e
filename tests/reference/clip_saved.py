"""Opens in transformers and diffusers the models of CLIP that aigc saved; prints for each the
largest difference of its outputs.

    pip install torch transformers diffusers safetensors
    python clip_saved.py DIR

DIR/NAME    a model's directory, and in it `case.safetensors` with inputs (`input_ids`,
            `pixel_values`) and aigc's outputs by transformers' names; or a tokenizer's directory,
            and in it `case.json` with `prompts` and the padded `ids`
"""
import json, pathlib, sys
import diffusers, torch, transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from safetensors.torch import load_file


def outputs(model, case):
    """The model's outputs, by name."""
    if isinstance(model, StableDiffusionSafetyChecker):
        embeds = model.visual_projection(model.vision_model(case["pixel_values"])[1])
        return {"image_embeds": embeds, "concept_cosines": cosine_distance(embeds, model.concept_embeds)}
    inputs = {name: case[name] for name in ("input_ids", "pixel_values") if name in case}
    return dict(model(**inputs))


def check_tokenizer(path):
    case = json.loads((path / "case.json").read_text())
    tokenizer = transformers.CLIPTokenizer.from_pretrained(path)
    ids = tokenizer(case["prompts"], padding="max_length", truncation=True).input_ids
    assert ids == case["ids"], f"{path.name}: {ids} {case['ids']}"
    return 0.0


def check_model(path):
    case = load_file(path / "case.safetensors")
    name = json.loads((path / "config.json").read_text())["architectures"][0]
    kind = StableDiffusionSafetyChecker if name == "StableDiffusionSafetyChecker" else getattr(transformers, name)
    model, info = kind.from_pretrained(path, output_loading_info=True)
    wrong = {kind: names for kind, names in info.items() if names}
    assert not wrong, f"{path.name}: {wrong}"
    with torch.no_grad():
        found = outputs(model.eval(), case)
    names = [name for name in case if name not in ("input_ids", "pixel_values")]
    missing = [name for name in names if name not in found]
    assert names and not missing, f"{path.name}: no outputs {missing or 'to compare'}"
    for name in names: assert found[name].shape == case[name].shape, f"{path.name}: {name}"
    # The largest of tensors is NaN if there is one, that of Python's numbers need not be.
    return float(torch.stack([(found[name] - case[name]).abs().max() for name in names]).max())


for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    check = check_tokenizer if (path / "case.json").exists() else check_model
    print(path.name, check(path))
