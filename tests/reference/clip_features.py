"""Embeddings of images and prompts by a small CLIP with random weights, by transformers, and their
CLIP score by torchmetrics, with ranks by their definition, for `tests/eval_clip.rs`.

    pip install torch torchmetrics transformers numpy pillow safetensors
    python clip_features.py ../fixtures/eval/clip

Writes the model's directory (weights, tokenizer, image processor) and `cases.safetensors`.
"""
import json, os, sys
import numpy as np, torch
from PIL import Image
from safetensors.torch import save_file
from torchmetrics.multimodal import CLIPScore
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

PROMPTS = ["a red circle", "Two blue squares!", "green", "a circle that is cut because it is far too long to fit"]

def byte_characters():
    """The characters that stand for the 256 bytes in byte-pair vocabularies of GPT-2 and CLIP."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return shown + [256 + i for i in range(256 - len(shown))]


def ranks(similarity):
    """1 + the number of candidates that are nearer than the own one, for each row."""
    return (1 + (similarity > similarity.diag()[:, None]).sum(1)).tolist()


if __name__ == "__main__":
    out = sys.argv[1]; os.makedirs(out, exist_ok=True)
    # Characters only: words are split into them.
    letters = [chr(c) for c in byte_characters()]; tokens = letters + [c + "</w>" for c in letters] + ["<|startoftext|>", "<|endoftext|>"]
    json.dump({t: i for i, t in enumerate(tokens)}, open(f"{out}/vocab.json", "w")); open(f"{out}/merges.txt", "w").write("#version: 0.2\n")
    eos = len(tokens) - 1
    json.dump(dict(model_max_length=24, tokenizer_class="CLIPTokenizer", bos_token="<|startoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>", pad_token="<|endoftext|>"), open(f"{out}/tokenizer_config.json", "w"))
    tokenizer = CLIPTokenizer(f"{out}/vocab.json", f"{out}/merges.txt", model_max_length=24)
    processor = CLIPImageProcessorPil(size=dict(shortest_edge=30), crop_size=dict(height=30, width=30))
    torch.manual_seed(1)
    tower = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, initializer_factor=4.0)
    model = CLIPModel(CLIPConfig(
        text_config=dict(tower, vocab_size=len(tokens), max_position_embeddings=24, bos_token_id=eos - 1, eos_token_id=eos, pad_token_id=eos),
        vision_config=dict(tower, image_size=30, patch_size=10), projection_dim=12, initializer_factor=4.0)).eval()
    model.save_pretrained(out); processor.save_pretrained(out)
    rng = np.random.default_rng(0); y, x = np.mgrid[:41, :53]
    images = np.stack([np.stack([127 + 90 * np.sin(0.1 * (k + 1) * x + c) * np.cos(0.07 * y * (c + 1)) for c in range(3)]) for k in range(4)])
    images = np.clip(images + 20 * rng.normal(size=images.shape), 0, 255).astype(np.uint8)
    pictures = [Image.fromarray(np.ascontiguousarray(m.transpose(1, 2, 0))) for m in images]
    tensors = lambda out: getattr(out, "pooler_output", out)
    with torch.no_grad():
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
        text = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt")
        image_embeds = tensors(model.get_image_features(pixel_values=pixels))
        text_embeds = tensors(model.get_text_features(**text))

    class Given(torch.nn.Module):
        """The model and processors as torchmetrics calls them; images are numbers of pictures."""
        config = model.config
        def get_image_features(self, x): return tensors(model.get_image_features(pixel_values=x))
        def get_text_features(self, ids, mask): return tensors(model.get_text_features(input_ids=ids, attention_mask=mask))
        def process(self, text=None, images=None, **_):
            if images is not None: return processor(images=[pictures[int(i)] for i in images], return_tensors="pt")
            return tokenizer(text, padding=True, truncation=True, max_length=24, return_tensors="pt")

    given = Given()
    metric = CLIPScore(lambda: (given, given.process))
    with torch.no_grad(): metric.update([torch.full((1, 1, 1), i) for i in range(4)], PROMPTS)
    units = [x.double() / x.double().norm(dim=1, keepdim=True) for x in (image_embeds, text_embeds)]
    cosines = units[0] @ units[1].T
    of_images, of_texts = ranks(cosines), ranks(cosines.T)
    print(cosines, of_images, of_texts)
    print(image_embeds[:, :4], text_embeds[:, :4], metric.compute())
    save_file(dict(images=torch.tensor(images.astype(np.float32)), image_embeds=image_embeds.contiguous(), text_embeds=text_embeds.contiguous()),
              f"{out}/cases.safetensors", metadata=dict(json=json.dumps(dict(prompts=PROMPTS, clip_score=float(metric.compute()), image_to_text=of_images, text_to_image=of_texts))))
    print({n: os.path.getsize(f"{out}/{n}") for n in os.listdir(out)})
