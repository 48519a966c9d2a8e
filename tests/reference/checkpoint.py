"""Pickles as they are published: a checkpoint of a small network with the names of Stable Diffusion 1, as PyTorch
Lightning writes it (`checkpoint.ckpt`), and a textual inversion of WebUI's (`style.pt`).

    pip install torch
    python checkpoint.py ../fixtures/prompt

Beside the weights, such checkpoints have the state of callbacks under their classes, which a reader must not import.
The averaged weights are the weights plus a half. The inversion's vectors count up from 0.
"""
import pathlib, sys, types
import torch

WIDTH, TIME = 4, 16


def lightning():
    """The class of a callback, as if PyTorch Lightning were installed."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    parts = name.split(".")
    for i in range(len(parts)):
        sys.modules[".".join(parts[: i + 1])] = types.ModuleType(".".join(parts[: i + 1]))
    callback = type("ModelCheckpoint", (), {"__module__": name})
    sys.modules[name].ModelCheckpoint = callback
    return callback


def layer(out, name, *shape, bias=True):
    n = len(out)
    out[f"{name}.weight"] = torch.full(shape, n / 64.0)
    if bias: out[f"{name}.bias"] = torch.full(shape[:1], -n / 64.0)


def resnet(out, name, before, after=WIDTH):
    layer(out, f"{name}.in_layers.0", before)
    layer(out, f"{name}.in_layers.2", after, before, 3, 3)
    layer(out, f"{name}.emb_layers.1", after, TIME)
    layer(out, f"{name}.out_layers.0", after)
    layer(out, f"{name}.out_layers.3", after, after, 3, 3)
    if before != after: layer(out, f"{name}.skip_connection", after, before, 1, 1)


def attention(out, name):
    layer(out, f"{name}.norm", WIDTH)
    layer(out, f"{name}.proj_in", WIDTH, WIDTH, 1, 1)
    block = f"{name}.transformer_blocks.0"
    for attn in ("attn1", "attn2"):
        for projection in ("to_q", "to_k", "to_v"): layer(out, f"{block}.{attn}.{projection}", WIDTH, WIDTH, bias=False)
        layer(out, f"{block}.{attn}.to_out.0", WIDTH, WIDTH)
    layer(out, f"{block}.ff.net.0.proj", 8 * WIDTH, WIDTH)
    layer(out, f"{block}.ff.net.2", WIDTH, 4 * WIDTH)
    for norm in ("norm1", "norm2", "norm3"): layer(out, f"{block}.{norm}", WIDTH)
    layer(out, f"{name}.proj_out", WIDTH, WIDTH, 1, 1)


def network():
    out = {}
    layer(out, "time_embed.0", TIME, WIDTH)
    layer(out, "time_embed.2", TIME, TIME)
    layer(out, "input_blocks.0.0", WIDTH, 4, 3, 3)
    resnet(out, "input_blocks.1.0", WIDTH); attention(out, "input_blocks.1.1")
    layer(out, "input_blocks.2.0.op", WIDTH, WIDTH, 3, 3)
    resnet(out, "input_blocks.3.0", WIDTH)
    resnet(out, "middle_block.0", WIDTH); attention(out, "middle_block.1"); resnet(out, "middle_block.2", WIDTH)
    resnet(out, "output_blocks.0.0", 2 * WIDTH)
    resnet(out, "output_blocks.1.0", 2 * WIDTH); layer(out, "output_blocks.1.1.conv", WIDTH, WIDTH, 3, 3)
    resnet(out, "output_blocks.2.0", 2 * WIDTH); attention(out, "output_blocks.2.1")
    resnet(out, "output_blocks.3.0", 2 * WIDTH); attention(out, "output_blocks.3.1")
    layer(out, "out.0", WIDTH)
    layer(out, "out.2", 4, WIDTH, 3, 3)
    return out


weights = network()
state = {"betas": torch.linspace(0.00085, 0.012, 8), "alphas_cumprod": torch.linspace(1, 0, 8)}
state |= {f"model.diffusion_model.{name}": value for name, value in weights.items()}
state |= {"model_ema." + f"diffusion_model.{name}".replace(".", ""): value + 0.5 for name, value in weights.items()}
state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(3, dtype=torch.int32)}
to = pathlib.Path(sys.argv[1])
torch.save({
    "epoch": 1, "global_step": 470000, "pytorch-lightning_version": "1.4.2", "state_dict": state,
    "callbacks": {lightning(): {"monitor": None, "best_model_score": None, "dirpath": "checkpoints"}},
    "optimizer_states": [], "lr_schedulers": [{"last_epoch": 1, "_step_count": 2}],
}, to / "checkpoint.ckpt")
torch.save({
    "string_to_token": {"*": 265}, "string_to_param": {"*": torch.nn.Parameter(torch.arange(12.0).reshape(3, 4))},
    "name": "a name", "step": 499, "sd_checkpoint": "cc6cb27103", "sd_checkpoint_name": "model",
}, to / "style.pt")
