"""Low-rank adapters (LoRA) of the GPT-2 of `gpt2_files.py`, and PEFT's outputs with them.

    pip install torch transformers safetensors peft
    python gpt2_lora.py tests/fixtures/text

`gpt2-lora/adapters` is as PEFT writes it. `case.json` and `tensors.safetensors` have tokens, the
logits with the adapters, the mean loss of the next token, its gradients with respect to all factors
(under PEFT's names), and the logits after merging.
"""
import json, os, sys
import torch
import peft, transformers
from safetensors.torch import save_file
from transformers import GPT2LMHeadModel

base = os.path.join(sys.argv[1], "gpt2-files", "whole")
root = os.path.join(sys.argv[1], "gpt2-lora")
torch.manual_seed(0)
ids = torch.randint(0, 29, (2, 9))
config = peft.LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=5, target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True)
model = peft.get_peft_model(GPT2LMHeadModel.from_pretrained(base), config).eval()
with torch.no_grad():
    for name, p in model.named_parameters():
        if "lora_" in name: p.normal_(0, 0.3)
output = model(ids, labels=ids)
output.loss.backward()
gradients = {name.replace(".default", ""): p.grad for name, p in model.named_parameters() if p.grad is not None}
assert len(gradients) == 8
adapters = os.path.join(root, "adapters")
model.save_pretrained(adapters)
os.remove(os.path.join(adapters, "README.md"))
path = os.path.join(adapters, "adapter_config.json")
with open(path) as f: written = json.load(f)
written["base_model_name_or_path"] = None  # a path on this machine
written["target_modules"].sort()  # a set, in no fixed order
with open(path, "w") as f: json.dump(written, f, indent=2, sort_keys=True)
logits = output.logits.detach()
with torch.no_grad(): merged = model.merge_and_unload()(ids).logits
tensors = {"input_ids": ids, "logits": logits, "merged": merged, "loss": output.loss.detach(), **gradients}
save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(root, "tensors.safetensors"))
versions = dict(torch=torch.__version__.split("+")[0], transformers=transformers.__version__, peft=peft.__version__)
with open(os.path.join(root, "case.json"), "w") as f: json.dump(dict(kind="gpt2-lora", versions=versions), f, indent=1)
