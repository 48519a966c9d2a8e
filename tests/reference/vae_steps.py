"""Training steps of small VAEs in PyTorch, for `tests/parity.rs`: weights before and after,
batches, noise, losses.

    pip install torch numpy safetensors
    python vae_steps.py ../fixtures/vae [--seed 0]

One directory per case: `case.json` and `tensors.safetensors`. Everything is float32.
"""
import argparse, json, os
import torch, torch.nn as nn, torch.nn.functional as F
from safetensors.torch import save_file

P = argparse.ArgumentParser(); P.add_argument("out"); P.add_argument("--seed", type=int, default=0)
A = P.parse_args(); torch.manual_seed(A.seed); torch.set_num_threads(1)
STEPS, BATCH = 5, 6


class Mlp(nn.Module):
    config = dict(kind="mlp", shape=dict(channels=1, height=4, width=4), hidden=12, latent=3, likelihood="bernoulli", activation="relu")

    def __init__(s):
        super().__init__()
        s.encoder, s.mean, s.log_variance = nn.Linear(16, 12), nn.Linear(12, 3), nn.Linear(12, 3)
        s.decoder, s.output = nn.Linear(3, 12), nn.Linear(12, 16)

    def encode(s, x):
        h = F.relu(s.encoder(x.flatten(1))); return s.mean(h), s.log_variance(h)

    def decode(s, z):
        return s.output(F.relu(s.decoder(z))).view(-1, 1, 4, 4)


class Conv(nn.Module):
    config = dict(kind="conv", shape=dict(channels=2, height=8, width=8), channels=[3, 4], hidden=10, latent=3, likelihood=dict(gaussian=0.5), activation="silu")

    def __init__(s):
        super().__init__()
        s.down = nn.ModuleList([nn.Conv2d(2, 3, 4, 2, 1), nn.Conv2d(3, 4, 4, 2, 1)])
        s.encoder, s.mean, s.log_variance = nn.Linear(16, 10), nn.Linear(10, 3), nn.Linear(10, 3)
        s.decoder, s.unflatten = nn.Linear(3, 10), nn.Linear(10, 16)
        s.up = nn.ModuleList([nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.ConvTranspose2d(3, 2, 4, 2, 1)])

    def encode(s, x):
        for c in s.down: x = F.silu(c(x))
        h = F.silu(s.encoder(x.flatten(1))); return s.mean(h), s.log_variance(h)

    def decode(s, z):
        h = F.silu(s.unflatten(F.silu(s.decoder(z)))).view(-1, 4, 2, 2)
        return s.up[1](F.silu(s.up[0](h)))


def log_prob(model, output, x):
    if model.config["likelihood"] == "bernoulli":
        return -F.binary_cross_entropy_with_logits(output, x, reduction="none").flatten(1).sum(1)
    return torch.distributions.Normal(output, 0.5).log_prob(x).flatten(1).sum(1)


def optimizers(parameters):
    return {
        "adam": (torch.optim.Adam(parameters, 1e-2, betas=(0.9, 0.999)), None),
        "adamw-clip": (torch.optim.AdamW(parameters, 1e-2, betas=(0.8, 0.99), weight_decay=0.1), 1.0),
        "sgd": (torch.optim.SGD(parameters, 1e-2), None),
    }


for make in (Mlp, Conv):
    for name in ("adam", "adamw-clip", "sgd"):
        model = make(); shape = model.config["shape"]
        optimizer, clip = optimizers(list(model.parameters()))[name]
        tensors = {f"before.{n}": p.detach().clone() for n, p in model.named_parameters()}
        x = torch.rand(STEPS, BATCH, shape["channels"], shape["height"], shape["width"]); noise = torch.randn(STEPS, BATCH, 3)
        # 8-bit pixels, as a loader returns them.
        x = (x * 255).round() / 255
        losses, norms = [], []
        for k in range(STEPS):
            mean, log_variance = model.encode(x[k]); output = model.decode(mean + (0.5 * log_variance).exp() * noise[k])
            kl = 0.5 * (mean ** 2 + log_variance.exp() - log_variance - 1).sum(1)
            loss = (kl - log_prob(model, output, x[k])).mean()
            optimizer.zero_grad(); loss.backward()
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), clip or 1e9)); optimizer.step(); losses.append(loss.detach())
        tensors |= {f"after.{n}": p.detach().clone() for n, p in model.named_parameters()}
        tensors |= dict(x=(x * 255).round().to(torch.uint8), noise=noise, losses=torch.stack(losses), grad_norms=torch.stack(norms))
        directory = f"{A.out}/{model.config['kind']}-{name}"; os.makedirs(directory, exist_ok=True)
        save_file({n: t.contiguous() for n, t in tensors.items()}, f"{directory}/tensors.safetensors")
        case = dict(kind="vae-steps", seed=A.seed, torch=torch.__version__.split("+")[0], optimizer=name, clip_norm=clip, learning_rate=1e-2, model=model.config)
        json.dump(case, open(f"{directory}/case.json", "w"), indent=1)
