"""A plain PyTorch loop for the VAEs of `examples/reproduce_vae`: the figures beside ours in
docs/results.md.

    pip install torch numpy
    python vae_mnist.py --data DIR [--model mlp|conv] [--steps 31000] [--seed 0] [--threads 2]

DIR has MNIST's four .gz files. Prints one JSON line: -ELBO over the 10,000 test images in nats per
image (one draw of z each), its two parts, steps per minute. The models are those of `vae_mlp` and
`vae_conv` in the benchmarks: PyTorch's default initialisation, Bernoulli likelihood on pixel
intensities, batch 128, Adam at 1e-3, full batches of a fresh permutation per epoch.
"""
import argparse, gzip, json, time
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F

P = argparse.ArgumentParser()
P.add_argument("--data", required=True); P.add_argument("--model", default="mlp"); P.add_argument("--steps", type=int, default=31000)
P.add_argument("--seed", type=int, default=0); P.add_argument("--threads", type=int, default=2)
A = P.parse_args(); torch.set_num_threads(A.threads); torch.manual_seed(A.seed)


def images(name):
    raw = gzip.open(f"{A.data}/{name}-images-idx3-ubyte.gz").read()
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 784).copy()).float() / 255


if A.model == "mlp":
    encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU()); heads = nn.Linear(400, 20), nn.Linear(400, 20)
    decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))
else:
    encoder = nn.Sequential(nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3136, 256), nn.ReLU())
    heads = nn.Linear(256, 32), nn.Linear(256, 32)
    decoder = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 3136), nn.ReLU(), nn.Unflatten(1, (64, 7, 7)), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Flatten())


def parts(x):
    h = encoder(x); m, l = heads[0](h), heads[1](h)
    y = decoder(m + torch.randn_like(m) * (0.5 * l).exp())
    return F.binary_cross_entropy_with_logits(y, x, reduction="sum"), -0.5 * (1 + l - m ** 2 - l.exp()).sum()


train, test = images("train"), images("t10k")
optimizer = torch.optim.Adam([p for m in (encoder, *heads, decoder) for p in m.parameters()], 1e-3)
done, began = 0, time.perf_counter()
while done < A.steps:
    order = torch.randperm(len(train))
    for k in range(len(train) // 128):
        if done == A.steps: break
        reconstruction, kl = parts(train[order[128 * k:128 * k + 128]])
        loss = (reconstruction + kl) / 128
        optimizer.zero_grad(); loss.backward(); optimizer.step(); loss.item(); done += 1
minutes = (time.perf_counter() - began) / 60
with torch.no_grad():
    sums = [sum(v) for v in zip(*((a.item(), b.item()) for a, b in map(parts, test.split(256))))]
print(json.dumps(dict(model=A.model, seed=A.seed, steps=done, nelbo=sum(sums) / len(test), reconstruction=sums[0] / len(test), kl=sums[1] / len(test), steps_per_minute=done / minutes)))
