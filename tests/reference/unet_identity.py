"""A call of diffusers' UNet2DModel with a vector for each sample (`class_embed_type` `identity`), for
`tests/parity.rs`.

    pip install torch diffusers safetensors
    python unet_identity.py ../fixtures/diffusion/UNet2DModel-identity

`model/` is the network, with random weights; `tensors.safetensors` has its input (`sample`,
`timestep`, `class_embeddings`) and its output.
"""
import json, os, sys
import diffusers, torch
from safetensors.torch import save_file

out = sys.argv[1]; os.makedirs(out, exist_ok=True); torch.manual_seed(0)
model = diffusers.UNet2DModel(sample_size=8, in_channels=1, out_channels=1, class_embed_type="identity", block_out_channels=(4, 4), down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    layers_per_block=1, norm_num_groups=2, attention_head_dim=2).eval()
width = model.time_embedding.linear_2.out_features; assert not any(name.startswith("class_embedding") for name in model.state_dict())
T = dict(sample=torch.randn(3, 1, 8, 8), timestep=torch.tensor([0, 13, 999]), class_embeddings=2 * torch.randn(3, width))
with torch.no_grad():
    T["output"] = model(T["sample"], T["timestep"], class_labels=T["class_embeddings"]).sample
    without = model(T["sample"], T["timestep"], class_labels=torch.zeros(3, width)).sample
assert (T["output"] - without).abs().amax((1, 2, 3)).min() > 1e-2, "the vectors have no effect"
model.save_pretrained(f"{out}/model"); save_file(T, f"{out}/tensors.safetensors")
json.dump(dict(kind="UNet2DModel", seed=0, diffusers=diffusers.__version__), open(f"{out}/case.json", "w"), indent=1)
