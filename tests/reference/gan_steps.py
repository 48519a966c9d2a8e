"""Training steps of small GANs in PyTorch, for `tests/parity.rs`: weights before and after,
batches, noise, losses.

    pip install torch numpy safetensors
    python gan_steps.py ../fixtures/gan [--seed 0]

Penalties are differentiated twice (`create_graph=True`), in float64: aigc's penalties, which need
no second derivatives, are compared with these. Penalised discriminators are smooth, since the
second derivatives of a leaky ReLU do not include its kinks. One directory per case: `case.json` and
`tensors.safetensors`. Names in them are former ones of aigc (`critic`, `latent`, `reach`), which it
still reads.
"""
import argparse, json, os
import torch, torch.nn as nn, torch.nn.functional as F
from safetensors.torch import save_file

P = argparse.ArgumentParser(); P.add_argument("out"); P.add_argument("--seed", type=int, default=0)
A = P.parse_args(); torch.manual_seed(A.seed); torch.set_num_threads(1)
STEPS, BATCH = 4, 6
sp = F.softplus


class Head(nn.Module):
    """Score, plus the inner product with a class vector, or an auxiliary classifier."""
    def __init__(s, c, pixels, how):
        super().__init__(); s.score = nn.Linear(c * pixels, 1); s.how = how
        if how == "projection": s.classes = nn.Parameter(torch.randn(3, c * pixels) / (c * pixels) ** 0.5)
        if how == "auxiliary": s.auxiliary = nn.Linear(c * pixels, 3)

    def forward(s, f, y):
        v = s.score(f.flatten(1)).squeeze(1)
        if s.how == "projection": v = v + (s.classes[y] * f.flatten(1)).sum(1)
        return v, (s.auxiliary(f.flatten(1)) if s.how == "auxiliary" else None)


class ConditionalNorm(nn.Module):
    def __init__(s, c, classes):
        super().__init__(); s.norm = nn.BatchNorm2d(c)
        if classes: s.scale, s.shift = nn.Parameter(torch.randn(3, c) * 0.1), nn.Parameter(torch.randn(3, c) * 0.1)

    def forward(s, x, y):
        x = s.norm(x)
        return x * (1 + s.scale[y][:, :, None, None]) + s.shift[y][:, :, None, None] if hasattr(s, "scale") else x


class DcG(nn.Module):
    def __init__(s, how, by_norm):
        super().__init__(); extra = 3 if how and not by_norm else 0; s.extra = extra
        s.layers = nn.ModuleList([nn.ConvTranspose2d(4 + extra, 6, 2, 1, 0, bias=False), nn.ConvTranspose2d(6, 5, 4, 2, 1, bias=False), nn.ConvTranspose2d(5, 2, 4, 2, 1)])
        s.norms = nn.ModuleList([ConditionalNorm(6, how and by_norm), ConditionalNorm(5, how and by_norm)])

    def forward(s, z, y):
        if s.extra: z = torch.cat([z, F.one_hot(y, 3).to(z)], 1)
        x = z[:, :, None, None]
        for l, n in zip(s.layers, s.norms): x = F.relu(n(l(x), y))
        return torch.tanh(s.layers[2](x))


class DcC(nn.Module):
    def __init__(s, norm, how):
        super().__init__(); batch = norm == "batch"; s.plane = None
        if how == "concat": s.plane = nn.Module(); s.plane.planes = nn.Parameter(torch.randn(3, 64))
        s.layers = nn.ModuleList([nn.Conv2d(2 + (how == "concat"), 5, 4, 2, 1), nn.Conv2d(5, 6, 4, 2, 1, bias=not batch)])
        s.norms = nn.ModuleList([nn.BatchNorm2d(6)] if batch else []); s.head = Head(6, 4, how)

    def forward(s, x, y):
        if s.plane is not None: x = torch.cat([x, s.plane.planes[y].view(-1, 1, 8, 8)], 1)
        x = F.leaky_relu(s.layers[0](x), 0.2); x = s.layers[1](x)
        if len(s.norms): x = s.norms[0](x)
        return s.head(F.leaky_relu(x, 0.2), y)


class MlpG(nn.Module):
    def __init__(s, how): super().__init__(); s.how = how; s.layers = nn.ModuleList([nn.Linear(7 if how else 4, 7), nn.Linear(7, 7), nn.Linear(7, 128)])
    def forward(s, z, y):
        if s.how: z = torch.cat([z, F.one_hot(y, 3).to(z)], 1)
        for l in s.layers[:2]: z = torch.tanh(l(z))
        return torch.tanh(s.layers[2](z)).view(-1, 2, 8, 8)


class MlpC(nn.Module):
    def __init__(s, how): super().__init__(); s.layers = nn.ModuleList([nn.Linear(128, 7), nn.Linear(7, 7)]); s.head = Head(7, 1, how)
    def forward(s, x, y):
        x = x.flatten(1)
        for l in s.layers: x = torch.tanh(l(x))
        return s.head(x[:, :, None, None], y)


def discriminator_loss(kind, r, f, eps):
    return {"minimax": lambda: (sp(-r) + eps * r).mean() + sp(f).mean(), "non_saturating": lambda: (sp(-r) + eps * r).mean() + sp(f).mean(),
            "least_squares": lambda: 0.5 * ((r - 1 + eps) ** 2).mean() + 0.5 * (f ** 2).mean(), "hinge": lambda: F.relu(1 - r).mean() + F.relu(1 + f).mean(),
            "wasserstein": lambda: f.mean() - r.mean(), "relativistic_pairing": lambda: sp(f - r).mean()}[kind]()


def generator_loss(kind, r, f):
    return {"minimax": lambda: -sp(f).mean(), "non_saturating": lambda: sp(-f).mean(), "least_squares": lambda: 0.5 * ((f - 1) ** 2).mean(),
            "hinge": lambda: -f.mean(), "wasserstein": lambda: -f.mean(), "relativistic_pairing": lambda: sp(r - f).mean()}[kind]()


def slope(D, x, y):
    x = x.detach().requires_grad_(); g, = torch.autograd.grad(D(x, y)[0].sum(), x, create_graph=True); return g.flatten(1).norm(dim=1)


SHAPE = dict(channels=2, height=8, width=8)
def dc(norm, how, by_norm):
    classes = how and dict(count=3, generator="norm" if by_norm else "concat", critic=how)
    return dict(kind="dcgan", shape=SHAPE, latent=4, channels=[5, 6], norm=norm, init_std=None, classes=classes), DcG(how, by_norm), DcC(norm, how)
def mlp(how=None):
    classes = how and dict(count=3, generator="concat", critic=how)
    return dict(kind="mlp", shape=SHAPE, latent=4, hidden=[7, 7], activation="tanh", output="tanh", norm=False, octaves=0, classes=classes), MlpG(how), MlpC(how)


CASES = [
    ("dcgan-non-saturating", dc("batch", None, False), "non_saturating", dict(label_smoothing=0.1), []),
    ("dcgan-least-squares-concat", dc("batch", "concat", False), "least_squares", {}, []),
    ("dcgan-hinge-projection", dc("none", "projection", True), "hinge", {}, []),
    ("dcgan-auxiliary", dc("batch", "auxiliary", True), "non_saturating", dict(auxiliary_weight=0.7), []),
    ("mlp-minimax-r1", mlp(), "minimax", {}, [("r1", 3.0)]),
    ("mlp-r3gan", mlp(), "relativistic_pairing", {}, [("r1", 2.0), ("r2", 2.0)]),
    ("dcgan-clip", dc("none", None, False), "wasserstein", dict(weight_clip=0.05), []),
    ("mlp-r3gan-projection", mlp("projection"), "relativistic_pairing", {}, [("r1", 2.0), ("r2", 2.0)]),
]
for name, (config, G, D), kind, extra, penalties in CASES:
    G, D = G.double(), D.double(); og, od = (torch.optim.Adam(m.parameters(), 1e-2, betas=(0.5, 0.99)) for m in (G, D))
    tensors = lambda w: {f"{w}.{side}.{n}": p.detach().clone().float() for side, m in (("generator", G), ("critic", D)) for n, p in m.state_dict().items() if "num_batches" not in n}
    T = tensors("before"); x = (torch.rand(STEPS, BATCH, 2, 8, 8) * 255).round(); z = torch.randn(STEPS, BATCH, 4); y = torch.randint(0, 3, (STEPS, BATCH)); losses = []
    for k in range(STEPS):
        real, fake, eps = (x[k] / 255 * 2 - 1).double(), G(z[k].double(), y[k]), extra.get("label_smoothing", 0)
        (r, rc), (f, fc) = D(real, y[k]), D(fake.detach(), y[k]); ld = discriminator_loss(kind, r, f, eps)
        for p, weight in penalties: ld = ld + weight / 2 * (slope(D, real if p == "r1" else fake, y[k]) ** 2).mean()
        w = extra.get("auxiliary_weight", 1)
        if rc is not None: ld = ld + w * (F.cross_entropy(rc, y[k]) + F.cross_entropy(fc, y[k]))
        od.zero_grad(); ld.backward(); od.step()
        if "weight_clip" in extra:
            for p in D.parameters(): p.data.clamp_(-extra["weight_clip"], extra["weight_clip"])
        # Only a loss that compares with real samples evaluates the discriminator on them again:
        # otherwise that would move the running statistics.
        f, fc = D(fake, y[k]); lg = generator_loss(kind, D(real, y[k])[0].detach() if kind == "relativistic_pairing" else None, f)
        if fc is not None: lg = lg + w * F.cross_entropy(fc, y[k])
        og.zero_grad(); lg.backward(); og.step(); losses.append([ld.item(), lg.item()])
    T |= tensors("after") | dict(x=x.to(torch.uint8), z=z, y=y.to(torch.uint8), losses=torch.tensor(losses))
    directory = f"{A.out}/{name}"; os.makedirs(directory, exist_ok=True); save_file({n: t.contiguous() for n, t in T.items()}, f"{directory}/tensors.safetensors")
    objective = dict(loss=kind, penalties=[dict(kind=p, weight=w, every=1, reach=1e-3) for p, w in penalties], monitor=None, **extra)
    json.dump(dict(kind="gan-steps", seed=A.seed, torch=torch.__version__.split("+")[0], learning_rate=1e-2, model=config, objective=objective), open(f"{directory}/case.json", "w"), indent=1)
