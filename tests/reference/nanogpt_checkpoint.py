"""Writes a model that aigc saved in the format of nanoGPT's `train.py`, to `ckpt.pt` beside it.

    pip install torch safetensors
    python nanogpt_checkpoint.py DIR
"""
import pathlib, sys
import torch
from safetensors.torch import load_file

directory = pathlib.Path(sys.argv[1])
linear = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
model = {}
for name, tensor in load_file(directory / "model.safetensors").items():
    # nanoGPT's models without biases lack the tensors that are zero in transformers' models.
    if name.endswith(".bias"):
        assert not tensor.any(), name
        continue
    name = name if name.startswith("transformer.") else f"transformer.{name}"
    model[f"_orig_mod.{name}"] = tensor.T.contiguous() if name.endswith(linear) else tensor
model["_orig_mod.lm_head.weight"] = model["_orig_mod.transformer.wte.weight"]
parameters = [torch.nn.Parameter(tensor.clone()) for tensor in model.values()]
optimizer = torch.optim.AdamW(parameters)
sum(parameter.sum() for parameter in parameters).backward()
optimizer.step()
torch.save(
    {
        "model": model,
        "optimizer": optimizer.state_dict(),
        "model_args": {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 48, "bias": False, "vocab_size": 60, "dropout": 0.0},
        "iter_num": 7,
        "best_val_loss": torch.tensor(1.5),
        "config": {"dataset": "shakespeare_char"},
    },
    directory / "ckpt.pt",
)
