"""Fréchet distances by the public formula (matrix square root of the product, as in pytorch-fid),
for `tests/eval.rs`.

    pip install torch numpy scipy safetensors
    python frechet.py ../fixtures/eval [LENET.safetensors MNIST-DIR]

Writes features and their distance. With the two other arguments it also prints the distance between
MNIST's training and test images in LeNet-5 features, with which `tests/eval.rs` compares ours.
"""
import gzip, json, os, sys
import numpy as np, torch, torch.nn.functional as F
from scipy import linalg
from safetensors.torch import load_file, save_file


def frechet(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False); root = linalg.sqrtm(ca @ cb)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * np.trace(root.real))


def lenet(path):
    w = load_file(path); conv = lambda x, n: F.relu(F.conv2d(x, w[f"convnet.{n}.weight"], w[f"convnet.{n}.bias"]))
    def features(x):
        x = F.interpolate(x, (32, 32), mode="bilinear", align_corners=False)
        x = F.max_pool2d(conv(x, "c1"), 2); x = F.max_pool2d(conv(x, "c3"), 2); x = conv(x, "c5").flatten(1)
        f = F.relu(F.linear(x, w["fc.f6.weight"], w["fc.f6.bias"])); return f, F.linear(f, w["fc.f7.weight"], w["fc.f7.bias"])
    return features


def images(directory, part):
    b = gzip.open(f"{directory}/{part}-images-idx3-ubyte.gz").read(); return torch.tensor(np.frombuffer(b, np.uint8, offset=16).reshape(-1, 1, 28, 28)).float() / 255


def labels(directory, part):
    return torch.tensor(np.frombuffer(gzip.open(f"{directory}/{part}-labels-idx1-ubyte.gz").read(), np.uint8, offset=8).astype(np.int64))


def all_features(classifier, x):
    with torch.no_grad(): out = [classifier(p) for p in x.split(1000)]
    return torch.cat([f for f, _ in out]), torch.cat([l for _, l in out])


if __name__ == "__main__":
    rng = np.random.default_rng(0); mix = rng.normal(size=(24, 24)); a = np.maximum(rng.normal(size=(400, 24)) @ mix + 1, 0)
    b = np.maximum(rng.normal(size=(300, 24)) @ (mix + 0.3 * rng.normal(size=(24, 24))) + 2, 0)
    # A constant feature, and fewer samples than features: singular covariances.
    c, d = a.copy(), b[:20].copy(); c[:, 5] = 0
    os.makedirs(sys.argv[1], exist_ok=True)
    a, b, c, d = (m.astype(np.float32) for m in (a, b, c, d))
    save_file(dict(a=torch.tensor(a), b=torch.tensor(b), c=torch.tensor(c), d=torch.tensor(d)), f"{sys.argv[1]}/features.safetensors")
    json.dump(dict(ab=frechet(a, b), cd=frechet(c, d), ac=frechet(a, c)), open(f"{sys.argv[1]}/frechet.json", "w"), indent=1)
    if len(sys.argv) > 3:
        classifier = lenet(sys.argv[2])
        (train, _), (test, logits) = (all_features(classifier, images(sys.argv[3], p)) for p in ("train", "t10k"))
        print("train against test", frechet(train.numpy(), test.numpy()), "accuracy", (logits.argmax(1) == labels(sys.argv[3], "t10k")).float().mean().item())
