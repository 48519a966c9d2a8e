"""One small GPT-2 in every kind of file in which GPT-2 is distributed, and its logits.

    pip install torch transformers safetensors
    python gpt2_files.py tests/fixtures/text

`gpt2-files/`: `whole` (safetensors), `shards` (safetensors with an index), `bin` and `bin-shards`
(PyTorch's pickles), `half` (bfloat16), `old` (float16, OpenAI's names, with the masks of
attention), `linear` (minGPT's and nanoGPT's layout: weights as [out, in], an output layer of its
own), and `code` (a pickle that names a function to run). `case.json` and `tensors.safetensors` have
tokens and logits.
"""
import json, os, sys
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

root = os.path.join(sys.argv[1], "gpt2-files")
torch.manual_seed(0)
config = GPT2Config(vocab_size=29, n_positions=12, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
model = GPT2LMHeadModel(config).eval()
with torch.no_grad():
    for p in model.parameters(): p.normal_(0, 0.3)
model.tie_weights()
ids = torch.randint(0, 29, (2, 9))


def directory(name):
    path = os.path.join(root, name)
    os.makedirs(path, exist_ok=True)
    config.to_json_file(os.path.join(path, "config.json"), use_diff=False)
    return path


def index(path, kind, files):
    names = {name: file for file, tensors in files.items() for name in tensors}
    with open(os.path.join(path, f"{kind}.index.json"), "w") as f: json.dump(dict(metadata={}, weight_map=names), f)


weights = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
first, second = (dict(list(weights.items())[part::2]) for part in (0, 1))
save_file(weights, os.path.join(directory("whole"), "model.safetensors"), {"format": "pt"})
path = directory("shards")
files = {"model-00001-of-00002.safetensors": first, "model-00002-of-00002.safetensors": second}
for name, tensors in files.items(): save_file(tensors, os.path.join(path, name), {"format": "pt"})
index(path, "model.safetensors", files)
torch.save({**weights, "lm_head.weight": weights["transformer.wte.weight"]}, os.path.join(directory("bin"), "pytorch_model.bin"))
path = directory("bin-shards")
files = {"pytorch_model-00001-of-00002.bin": first, "pytorch_model-00002-of-00002.bin": second}
for name, tensors in files.items(): torch.save(tensors, os.path.join(path, name))
index(path, "pytorch_model.bin", files)
half = {k: v.bfloat16() for k, v in weights.items()}
save_file(half, os.path.join(directory("half"), "model.safetensors"), {"format": "pt"})
old = {k.removeprefix("transformer."): v.half() for k, v in weights.items()}
for i in range(2): old[f"h.{i}.attn.bias"] = torch.tril(torch.ones(12, 12)).view(1, 1, 12, 12)
save_file(old, os.path.join(directory("old"), "model.safetensors"), {"format": "pt"})
turned = {k: v.T.contiguous() if k.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else v for k, v in weights.items()}
turned["lm_head.weight"] = torch.randn(29, 16)
save_file(turned, os.path.join(directory("linear"), "model.safetensors"), {"format": "pt"})


class Harm:
    def __reduce__(self): return os.system, ("echo this pickle was run",)


torch.save({**weights, "harm": Harm()}, os.path.join(directory("code"), "pytorch_model.bin"))


def logits(tensors, head=None):
    model.load_state_dict({**{k: v.float() for k, v in tensors.items()}, "lm_head.weight": tensors["transformer.wte.weight"].float()})
    with torch.no_grad():
        hidden = model.transformer(ids).last_hidden_state
        return (hidden @ head.T) if head is not None else model(ids).logits


prefixed = {f"transformer.{k}": v for k, v in old.items() if not k.endswith(".attn.bias")}
tensors = {"input_ids": ids, "whole": logits(weights), "half": logits(half), "old": logits(prefixed), "linear": logits(weights, turned["lm_head.weight"])}
save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(root, "tensors.safetensors"))
import transformers
case = dict(kind="gpt2-files", versions=dict(torch=torch.__version__.split("+")[0], transformers=transformers.__version__))
with open(os.path.join(root, "case.json"), "w") as f: json.dump(case, f, indent=1)
