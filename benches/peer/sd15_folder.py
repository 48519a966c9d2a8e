"""Writes a directory with a pipeline of Stable Diffusion 1.5's shape and random weights (4.3 GB), for the workloads sd15_request:

    python benches/peer/sd15_folder.py DIR
"""
import json, os, sys, tempfile
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

torch.manual_seed(0)
# The characters that stand for the 256 bytes in byte-level vocabularies, and no merges.
plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
others = [b for b in range(256) if b not in plain]
characters = [chr(b) for b in plain] + [chr(256 + k) for k in range(len(others))]
words = characters + [c + "</w>" for c in characters] + ["<|startoftext|>", "<|endoftext|>"]
with tempfile.TemporaryDirectory() as folder:
    vocabulary, merges = os.path.join(folder, "vocab.json"), os.path.join(folder, "merges.txt")
    json.dump({word: k for k, word in enumerate(words)}, open(vocabulary, "w"))
    open(merges, "w").write("#version: 0.2\n")
    json.dump({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}, open(os.path.join(folder, "tokenizer_config.json"), "w"))
    tokenizer = CLIPTokenizer.from_pretrained(folder)
text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768, bos_token_id=len(words) - 2, eos_token_id=len(words) - 1)
StableDiffusionPipeline(
    text_encoder=CLIPTextModel(text),
    tokenizer=tokenizer,
    unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
    vae=AutoencoderKL(block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, sample_size=512),
    scheduler=PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1),
    safety_checker=None, feature_extractor=None, requires_safety_checker=False,
).save_pretrained(sys.argv[1])
