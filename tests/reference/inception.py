"""Features of InceptionV3 by torch-fidelity and pytorch-fid, for `tests/eval_inception.rs`.

    pip install torch torchvision torch-fidelity pytorch-fid numpy safetensors
    python inception.py ../fixtures/eval/inception

The published weights have 95 MB. These are drawn by a formula, which the test has too: only
features are stored.
"""
import json, os, sys, tempfile, zlib
from unittest import mock
import numpy as np, torch
from safetensors.torch import save_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from pytorch_fid import inception


def uniform(name, count):
    """Numbers in [−1, 1) by SplitMix64 from the CRC-32 of a name."""
    x = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 32)) * np.uint64(0x9e3779b97f4a7c15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xbf58476d1ce4e5b9); x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94d049bb133111eb)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def weight(name, shape):
    u = uniform(name, int(np.prod(shape))).reshape(shape)
    # Products keep their size through ReLUs: variance 2 / fan-in.
    if name.endswith("conv.weight") or name == "fc.weight": u = u * np.sqrt(6 / np.prod(shape[1:]))
    elif name.endswith("running_var"): u = 1 + 0.5 * u
    elif name.endswith("bn.weight"): u = 1 + 0.25 * u
    else: u = 0.25 * u
    return torch.tensor(u.astype(np.float32))


def image(number, channels, height, width):
    smooth = np.fromfunction(lambda c, y, x: np.sin(0.05 * (number + 1) * x + c) + np.cos(0.07 * y * (1 + c)), (channels, height, width))
    noise = uniform(f"image {number}", channels * height * width).reshape(channels, height, width)
    return torch.tensor(np.clip(127.5 + 45 * smooth + 25 * noise, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    out = sys.argv[1]; os.makedirs(out, exist_ok=True)
    with torch.no_grad():
        with mock.patch("torch.hub.load_state_dict_from_url"), mock.patch("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *a, **k: None), mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict", lambda *a: None):
            ours = FeatureExtractorInceptionV3("inception-v3-compat", ["64", "192", "768", "2048", "logits_unbiased", "logits"])
        state = {n: weight(n, t.shape) for n, t in ours.state_dict().items() if "num_batches" not in n}
        ours.load_state_dict(state, strict=False)
        result, cases = {}, [(2, 3, 32, 32), (1, 3, 64, 100), (1, 3, 299, 299), (1, 3, 400, 310)]
        for k, (n, *shape) in enumerate(cases):
            x = torch.stack([image(10 * k + i, *shape) for i in range(n)])
            for name, f in zip(["64", "192", "768", "2048", "logits_unbiased", "logits"], ours(x)): result[f"torch_fidelity.{k}.{name}"] = f.contiguous()
        fid = inception.fid_inception_v3
        with mock.patch("pytorch_fid.inception.load_state_dict_from_url", lambda *a, **k: None), mock.patch("torch.nn.Module.load_state_dict", lambda *a, **k: None): net = fid()
        print(net.load_state_dict(state, strict=False))
        with mock.patch("pytorch_fid.inception.fid_inception_v3", lambda: net): theirs = inception.InceptionV3([3]).eval()
        for k, (n, *shape) in enumerate(cases):
            x = torch.stack([image(10 * k + i, *shape) for i in range(n)])
            result[f"pytorch_fid.{k}.2048"] = theirs(x / 255)[0][:, :, 0, 0].contiguous()
    save_file(result, f"{out}/features.safetensors")
    json.dump(dict(cases=cases, names={n: list(t.shape) for n, t in state.items()}), open(f"{out}/case.json", "w"))
    print({n: (tuple(t.shape), float(t.abs().mean())) for n, t in result.items() if "2048" in n or "logits" in n}, os.path.getsize(f"{out}/features.safetensors"))
    if len(sys.argv) > 2: torch.save(ours.state_dict(), sys.argv[2])
