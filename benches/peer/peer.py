"""The peer's side of `compare`: the same training steps in plain PyTorch on the CPU.

    pip install torch
    python peer.py WORKLOAD [--seconds 4] [--threads 2]

Prints one JSON line with the median seconds of a step: forward, backward, optimizer, gradient reset, loss read back.
"""
import argparse, json, os, time
import torch, torch.nn as nn, torch.nn.functional as F

P = argparse.ArgumentParser(); P.add_argument("workload"); P.add_argument("--seconds", type=float, default=4.0)
P.add_argument("--threads", type=int, default=os.cpu_count()); A = P.parse_args()
torch.set_num_threads(A.threads); torch.manual_seed(0)


def vae(encoder, width, latent, decoder, shape):
    mean, log_variance, x = nn.Linear(width, latent), nn.Linear(width, latent), torch.rand(128, *shape)
    optimizer = torch.optim.Adam([p for m in (encoder, mean, log_variance, decoder) for p in m.parameters()], 1e-3)

    def step():
        h = encoder(x); m, l = mean(h), log_variance(h)
        y = decoder(m + torch.randn_like(m) * (0.5 * l).exp())
        loss = (F.binary_cross_entropy_with_logits(y, x, reduction="sum") - 0.5 * (1 + l - m ** 2 - l.exp()).sum()) / 128
        optimizer.zero_grad(); loss.backward(); optimizer.step(); return loss.item()

    return step


def vae_mlp():
    """784-400-(20,20)-400-784, ReLU."""
    return vae(nn.Sequential(nn.Linear(784, 400), nn.ReLU()), 400, 20, nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784)), [784])


def vae_conv():
    """Convolutions 1-32-64 (4x4, stride 2), linear 256, 32 latent dimensions, and back."""
    encoder = nn.Sequential(nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3136, 256), nn.ReLU())
    decoder = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 3136), nn.ReLU(), nn.Unflatten(1, (64, 7, 7)), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1))
    return vae(encoder, 256, 32, decoder, [1, 28, 28])


step = dict(vae_mlp=vae_mlp, vae_conv=vae_conv)[A.workload]()
for _ in range(3): step()
times, end = [], time.perf_counter() + A.seconds
while len(times) < 3 or time.perf_counter() < end:
    start = time.perf_counter(); step(); times.append(time.perf_counter() - start)
print(json.dumps(dict(workload=A.workload, median_s=sorted(times)[len(times) // 2], steps=len(times))))
