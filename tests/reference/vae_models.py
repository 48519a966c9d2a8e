"""Training steps of VAEs and of priors in PyTorch, for `tests/vae_models.rs`.

    pip install torch numpy safetensors
    python vae_models.py ../fixtures/vae/models.safetensors [--seed 0]

Written from the papers, not from this repository, whose configurations and names of weights are
kept. Computed in float64 from numbers that float32 holds exactly; what is stored is float32. One
file, with JSON in its metadata under `json`: `cases`, each with `name`, `kind`, the `model` whose
weights it has (tensors `models/MODEL/*`), the configuration `config`, the weight `beta` of the
divergence, and what is expected of its `steps`.

Of a step are `loss` and its metrics `terms`, and tensors `cases/NAME/STEP/*`: `x`, pixels [batch,
channels, height, width]; `grad.*`, the gradients of the loss.

Kinds "vq_vae" and "vq_vae_2": of each `level` of a step are also `codes.LEVEL`, [batch, positions,
codebooks], and `values.LEVEL`, the values of the codes, [batch, positions, dim]. A step ends with
plain gradient descent with the rate `rate`, then with the update of the codebooks, whose state is
`after.*`.

Kind "hierarchical": `free_bits` of each group; `labels`, the classes of the batch, or null; `seed`
of aigc's generator, whose first normal numbers are `noise`; and of a step also `kl`, [groups,
batch], `z`, the latents, [batch, dim], and, where the model takes them, `vectors`, [batch, dim].

Kinds "conditional", "prior" and "flow": `labels`, `seed` and `noise` as above; `prior` or `flow`,
the configuration of the prior of the model or of the flow of its posteriors; of a step also, where
the model takes them, `vectors`, [batch, dim], and `states`, [batch, tokens, width], which it
attends to. Kind "prior_alone": the `prior` of latents `z`, [batch, dim], whose mean -log p(z) is
the loss. Kind "code_prior": the codes of each level, coarsest first, and the class of each of the
`samples`.
"""
import argparse, contextlib, hashlib, io, itertools, json, math, struct, sys
import torch, torch.nn as nn, torch.nn.functional as F
from safetensors.torch import save_file
from torch.distributions import Normal, kl_divergence
sys.dont_write_bytecode = True
with contextlib.redirect_stdout(io.StringIO()):   # a script, which prints
    from rng import block

P = argparse.ArgumentParser()
P.add_argument("out")
P.add_argument("--seed", type=int, default=0)
A = P.parse_args()
torch.set_num_threads(1)
BATCH = 5
# Roundings of float32 change no choice: of a code, a level or a sign.
MARGIN = 5e-4
TENSORS, CASES = {}, []


def store(prefix, tensors):
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        TENSORS[f"{prefix}/{name}"] = tensor.clone().contiguous()


def store_model(name, weights):
    """Cases may have equal models."""
    for key, tensor in weights.items():
        known = TENSORS.get(f"models/{name}/{key}")
        assert known is None or known.equal(tensor.float()), (name, key)
    store(f"models/{name}", weights)


def number(x): return float(x.detach()) if torch.is_tensor(x) else float(x)
def exact(x): return x.float().double()
def gradients(made): return {f"grad.{n}": p.grad.clone() for n, p in made.named_parameters()}
def total(terms): return terms.flatten(1).sum(1)


def shape(channels, side): return dict(channels=channels, height=side, width=side)


def pixels(config):
    size = config["shape"]
    return torch.randint(0, 256, (BATCH, *size.values()), dtype=torch.uint8)


def log_prob(kind, output, x):
    """log p(x|z), [batch]."""
    if kind == "bernoulli":   # A grey pixel counts as a probability.
        return -total(F.binary_cross_entropy_with_logits(output, x, reduction="none"))
    return total(Normal(output, kind["gaussian"]).log_prob(x))


ACTIVATIONS = dict(silu=F.silu, gelu=F.gelu, tanh=torch.tanh)


class Unclear(Exception):
    """A case that float32 may decide otherwise, or one with too few codes."""


def check(codes, margins, least):
    if margins.min() < MARGIN or len(codes.unique()) < least: raise Unclear


# --- Quantisers ----------------------------------------------------------------------------------
# From vectors [batch, positions, dim] to the values of codes, with the gradient of the vectors,
# codes [batch, positions, codebooks] and losses: means over the batch of sums over positions and
# dimensions. (The experiments of van den Oord et al. 2017 take means over positions.)

def straight_through(x, quantized): return x + (quantized - x).detach()


class Vector(nn.Module):
    """VQ, van den Oord et al. 2017: eq. 1-3; for moving averages app. A.1, with Laplace smoothing
    of the counts (as in the authors' code). With `cosine`, vectors and codes have
    length 1 (Yu et al. 2022, sec. 3.2)."""
    def __init__(s, config, started=True):
        super().__init__()
        s.config, s.fresh, s.begun = config, True, started
        k, averages = config["num_codes"], config["update"] == "moving_average"
        codes = torch.zeros(k, config["dim"])
        if averages:
            s.register_buffer("codes", codes)
            s.register_buffer("sums", torch.zeros_like(codes))
        else: s.codes = nn.Parameter(codes)
        s.register_buffer("counts", torch.ones(k))
        s.register_buffer("started", torch.full((1,), float(started)))

    def begin(s, vectors):
        """Codes not far from vectors, so that most are used; a past, if there was one."""
        k, s.fresh = len(s.codes), False
        codes = vectors[torch.randperm(len(vectors))[:k]]
        codes = codes + 0.3 * vectors.std() * torch.randn(codes.shape).double()
        s.codes.data = exact(codes)
        if s.begun:
            s.counts = exact(0.5 + 3 * torch.rand(k))
            if s.config["update"] == "moving_average":
                s.sums = exact(s.codes * s.counts[:, None] + 0.1 * torch.randn(codes.shape))

    def normalized(s, x):
        if not s.config["cosine"]: return x
        if x.norm(dim=-1).min() < 0.5: raise Unclear   # The gradient would lose digits.
        return F.normalize(x, dim=-1)

    def forward(s, x):
        if s.fresh: s.begin(x.detach().flatten(0, 1))
        x, table = s.normalized(x), s.normalized(s.codes)
        distances = ((x[:, :, None] - table) ** 2).sum(3)
        nearest = distances.detach().sort(2).values
        codes = distances.argmin(2)
        check(codes, nearest[..., 1] - nearest[..., 0], 4)
        values = table[codes]
        losses = dict(commitment=s.config["commitment_weight"] * ((x - values.detach()) ** 2))
        if s.config["update"] == "gradient":
            losses["codebook"] = s.config["codebook_weight"] * ((x.detach() - values) ** 2)
        s.last_batch = x.detach().flatten(0, 1), codes.flatten()
        losses = {name: total(loss).mean() for name, loss in losses.items()}
        return straight_through(x, values), codes[..., None], losses

    @torch.no_grad()
    def update(s):
        (x, codes), decay, k = s.last_batch, s.config["decay"], len(s.codes)
        members = F.one_hot(codes, k).double()
        s.counts = decay * s.counts + (1 - decay) * members.sum(0)
        if s.config["update"] == "moving_average":
            # Before the first update, a code is the mean of one vector: N = 1, m = e.
            past = s.sums if s.started else s.codes
            s.sums = decay * past + (1 - decay) * members.T @ x
            n, epsilon = s.counts.sum(), s.config["epsilon"]
            smoothed = (s.counts + epsilon) / (n + k * epsilon) * n
            s.codes = s.sums / smoothed[:, None]
        s.started = torch.ones_like(s.started)

    def log_codes(s): return math.log(len(s.codes))


class Residual(nn.Module):
    """Residual VQ, Zeghidour et al. 2021, algorithm 1."""
    def __init__(s, config):
        super().__init__()
        stages = range(config["num_quantizers"])
        s.stages = nn.ModuleList([Vector(config["quantizer"]) for _ in stages])

    def forward(s, x):
        rest, codes, losses = x, [], {}
        for stage in s.stages:
            values, code, terms = stage(rest)
            rest = rest - values.detach()
            codes.append(code)
            for name, term in terms.items(): losses[name] = losses.get(name, 0) + term
        return straight_through(x, x - rest), torch.cat(codes, 2), losses

    def update(s):
        for stage in s.stages: stage.update()

    def log_codes(s): return sum(stage.log_codes() for stage in s.stages)


class FiniteScalar(nn.Module):
    """FSQ, Mentzer et al. 2023, app. A.1, with artanh for its tan: f(0) = 0. Two levels, for which
    there is no such shift, are symmetric."""
    def __init__(s, config):
        super().__init__()
        s.levels = torch.tensor(config["levels"]).double()

    def forward(s, x):
        even, two = s.levels % 2 == 0, s.levels == 2
        half = (s.levels - 1) * (1 - 1e-3) / 2
        offset = torch.where(even, 0.5, 0.0).double()
        shift = torch.atanh(torch.where(two, 0.0, offset / half))
        bounded = torch.tanh(x + shift) * half - offset
        width = s.levels // 2
        quantized = straight_through(bounded, bounded.round()) / width
        places = torch.cat([torch.ones(1).double(), s.levels.cumprod(0)[:-1]])
        codes = ((bounded.round() + width) * places).sum(2, keepdim=True)
        check(codes, (bounded - bounded.floor() - 0.5).abs(), 6)
        return quantized, codes.detach().long(), {}

    def log_codes(s): return math.log(s.levels.prod())


class LookupFree(nn.Module):
    """LFQ, Yu et al. 2023, sec. 3.1, with q(c|x) ~ exp(-|x - c|^2 / temperature) and a
    factor of the second entropy; of groups of dimensions, that one is the sum of theirs."""
    def __init__(s, config):
        super().__init__()
        s.config = config

    def probabilities(s, x):
        """q(c|x) of all corners c of the cube, [n, corners]."""
        d = x.shape[1]
        corners = torch.tensor([[(c >> bit & 1) * 2.0 - 1 for bit in range(d)]
                                for c in range(2 ** d)]).double()
        distances = ((x[:, None] - corners) ** 2).sum(2)
        return torch.softmax(-distances / s.config["temperature"], 1)

    def forward(s, x):
        c, positions = s.config, x.shape[1]
        signs = torch.where(x > 0, 1.0, -1.0).double()
        codes = ((x > 0) * 2 ** torch.arange(x.shape[2])).sum(2, keepdim=True)
        check(codes, x.abs(), 6)
        losses = dict(commitment=c["commitment_weight"] * total((x - signs) ** 2).mean())
        if c["entropy_weight"]:
            def entropy(p): return -(p * p.log()).sum(-1)
            vectors = x.flatten(0, 1)
            parts = vectors.split(c["group_dim"], 1)
            diverse = sum(entropy(s.probabilities(part).mean(0)) for part in parts)
            penalty = entropy(s.probabilities(vectors)).mean() - c["diversity_weight"] * diverse
            losses["entropy"] = c["entropy_weight"] * positions * penalty
        return straight_through(x, signs), codes, losses

    def log_codes(s): return s.config["dim"] * math.log(2)


QUANTIZERS = dict(vector=Vector, residual=Residual, finite_scalar=FiniteScalar,
                  lookup_free=LookupFree)


def quantizer(config, **more):
    dims = dict(finite_scalar=lambda: len(config["levels"]),
                residual=lambda: config["quantizer"]["dim"])
    made = QUANTIZERS[config["kind"]](config, **more)
    made.dim = dims.get(config["kind"], lambda: config["dim"])()
    return made


def quantize(quantizer, maps):
    """Of the vectors at all positions of maps, row by row."""
    values, codes, losses = quantizer(maps.flatten(2).transpose(1, 2))
    return values.transpose(1, 2).reshape(maps.shape), (codes, values), losses


# --- Quantised models ----------------------------------------------------------------------------

def kernel(stride): return (2 * stride, stride // 2) if stride % 2 == 0 else (stride + 2, 1)


class Conv(nn.Conv2d):
    """A convolution whose outputs for its first batch get mean 0 and deviation 1: with PyTorch's
    initial weights, latents hardly differ between positions."""
    fresh = True

    def forward(s, x):
        if s.fresh:
            y, s.fresh = super().forward(x).detach(), False
            mean, std = y.mean((0, 2, 3)), y.std((0, 2, 3))
            s.weight.data = exact(s.weight / std[:, None, None, None])
            s.bias.data = exact((s.bias - mean) / std)
        return super().forward(x)


class ResidualBlock(nn.Module):
    def __init__(s, width, inner, act):
        super().__init__()
        s.act = act
        s.conv1, s.conv2 = nn.Conv2d(width, inner, 3, padding=1), nn.Conv2d(inner, width, 1)

    def forward(s, x): return x + s.conv2(s.act(s.conv1(s.act(x))))


def blocks(config, width):
    act, inner = ACTIVATIONS[config["activation"]], config["residual_channels"]
    return nn.ModuleList([ResidualBlock(width, inner, act)
                          for _ in range(config["residual_blocks"])])


class Encoder(nn.Module):
    def __init__(s, config, inputs, strides, channels):
        super().__init__()
        s.act, s.down = ACTIVATIONS[config["activation"]], nn.ModuleList()
        for stride, outputs in zip(strides, channels):
            size, padding = kernel(stride)
            s.down.append(Conv(inputs, outputs, size, stride, padding))
            inputs = outputs
        s.conv, s.blocks = Conv(inputs, inputs, 3, padding=1), blocks(config, inputs)

    def forward(s, x):
        for conv in s.down: x = s.act(conv(x))
        x = s.conv(x)
        for block in s.blocks: x = block(x)
        return s.act(x)


class Decoder(nn.Module):
    def __init__(s, config, inputs, outputs, strides, channels):
        super().__init__()
        s.act, width = ACTIVATIONS[config["activation"]], channels[-1]
        s.conv, s.blocks = nn.Conv2d(inputs, width, 3, padding=1), blocks(config, width)
        s.up = nn.ModuleList()
        sizes = [outputs, *channels]
        for index in reversed(range(len(strides))):
            size, padding = kernel(strides[index])
            s.up.append(nn.ConvTranspose2d(sizes[index + 1], sizes[index], size, strides[index],
                                           padding))

    def forward(s, x):
        x = s.conv(x)
        for block in s.blocks: x = block(x)
        for conv in s.up: x = conv(s.act(x))
        return x


class VqVae(nn.Module):
    def __init__(s, config, **more):
        super().__init__()
        stack, images = (config["strides"], config["channels"]), config["shape"]["channels"]
        s.quantizer = quantizer(config["quantizer"], **more)
        s.encoder = Encoder(config, images, *stack)
        s.project = Conv(config["channels"][-1], s.quantizer.dim, 1)
        s.decoder = Decoder(config, s.quantizer.dim, images, *stack)

    def quantizers(s): return dict(quantizer=s.quantizer)

    def forward(s, x):
        z, level, losses = quantize(s.quantizer, s.project(s.encoder(x)))
        return s.decoder(z), [level], [losses]


class VqVae2(nn.Module):
    """Razavi et al. 2019, algorithm 1: the encoder of the bottom map receives the top map."""
    def __init__(s, config, **more):
        super().__init__()
        images, width, top = config["shape"]["channels"], config["channels"], config["top_strides"]
        bottom, factor = config["bottom_strides"], math.prod(top)
        s.top, s.bottom = quantizer(config["top"], **more), quantizer(config["bottom"], **more)
        s.bottom_encoder = Encoder(config, images, bottom, [width] * len(bottom))
        s.top_encoder = Encoder(config, width, top, [width] * len(top))
        s.top_project = Conv(width, s.top.dim, 1)
        s.top_decoder = Decoder(config, s.top.dim, width, top, [width] * len(top))
        s.bottom_project = Conv(2 * width, s.bottom.dim, 1)
        s.upsample = nn.ConvTranspose2d(s.top.dim, s.top.dim, factor, factor)
        s.decoder = Decoder(config, s.top.dim + s.bottom.dim, images, bottom,
                            [width] * len(bottom))

    def quantizers(s): return dict(top=s.top, bottom=s.bottom)

    def forward(s, x):
        features = s.bottom_encoder(x)
        top, top_level, top_losses = quantize(s.top, s.top_project(s.top_encoder(features)))
        hidden = torch.cat([s.top_decoder(top), features], 1)
        bottom, bottom_level, bottom_losses = quantize(s.bottom, s.bottom_project(hidden))
        output = s.decoder(torch.cat([s.upsample(top), bottom], 1))
        return output, [top_level, bottom_level], [top_losses, bottom_losses]


def quantised_steps(made, config, steps, rate):
    """Yields loss, terms and tensors of steps with new batches."""
    for x in [pixels(config) for _ in range(steps)]:
        images = (x.float() / 255).double()
        made.zero_grad()
        output, levels, losses = made(images)
        # Codes are uniform under the prior, so that the divergence of a position is log K.
        kl = sum(codes.shape[1] * quantizer.log_codes()
                 for (codes, _), quantizer in zip(levels, made.quantizers().values()))
        terms = dict(reconstruction=-log_prob(config["likelihood"], output, images).mean(), kl=kl)
        for key, term in [item for level in losses for item in level.items()]:
            terms[key] = terms.get(key, 0) + term
        loss = sum(terms.values())
        loss.backward()
        tensors = dict(gradients(made), x=x)
        for level, (codes, values) in enumerate(levels):
            tensors[f"codes.{level}"], tensors[f"values.{level}"] = codes.int(), values
        with torch.no_grad():
            for p in made.parameters(): p -= rate * p.grad
        for prefix, quantizer in made.quantizers().items():
            if not quantizer.state_dict(): continue
            quantizer.update()
            state = quantizer.state_dict().items()
            tensors |= {f"after.{prefix}.{key}": tensor.clone() for key, tensor in state}
        yield loss, terms, tensors


def quantised(name, kind, config, steps=1, rate=0.01, of=None, **more):
    """One case, with the first seed that makes its choices clear."""
    of = of or name
    for seed in itertools.count(A.seed):
        torch.manual_seed(seed)
        made = dict(vq_vae=VqVae, vq_vae_2=VqVae2)[kind](config, **more).double()
        try:
            with torch.no_grad(): made(pixels(config).double() / 255)   # scales latents, sets codes
            before = {key: tensor.clone() for key, tensor in made.state_dict().items()}
            results = list(quantised_steps(made, config, steps, rate))
            break
        except Unclear: continue
    store_model(of, before)
    expected = []
    for index, (loss, terms, tensors) in enumerate(results):
        store(f"cases/{name}/{index}", tensors)
        terms = {key: number(term) for key, term in terms.items()}
        expected.append(dict(loss=number(loss), terms=terms, levels=len(made.quantizers())))
    CASES.append(dict(name=name, kind=kind, model=of, config=config, beta=1.0, rate=rate,
                      steps=expected))


def table(update, num_codes=6, dim=3, kind=dict(kind="vector"), cosine=False):
    return dict(kind, num_codes=num_codes, dim=dim, update=update, decay=0.8, epsilon=0.05,
                commitment_weight=0.25, codebook_weight=0.75, kmeans_start=False, revive_below=0.0,
                cosine=cosine)


def vq_vae(quantizer, channels=1, strides=(2,), likelihood="bernoulli", activation="silu"):
    widths = [4] if len(strides) == 1 else [3, 4]
    return dict(shape=shape(channels, 6), strides=strides, channels=widths, residual_blocks=1,
                residual_channels=2, quantizer=quantizer, likelihood=likelihood,
                activation=activation)


GAUSSIAN = dict(gaussian=0.5)
quantised("vq-gradient", "vq_vae", vq_vae(table("gradient"), 3, (2, 1), GAUSSIAN), steps=2,
          rate=0.001)
quantised("vq-moving-average", "vq_vae", vq_vae(table("moving_average")), steps=2, started=False)
quantised("vq-moving-average-started", "vq_vae", vq_vae(table("moving_average"), 1, (3,), GAUSSIAN))
for update, steps in (("gradient", 1), ("moving_average", 2)):
    name = update.replace("_", "-")
    quantised(f"vq-cosine-{name}", "vq_vae", vq_vae(table(update, cosine=True)), steps=steps)
for update, stages, steps in (("gradient", 2, 1), ("moving_average", 3, 2)):
    name = update.replace("_", "-")
    residual = dict(kind="residual", num_quantizers=stages, dropout=0.0,
                    quantizer=table(update, 5, kind={}))
    quantised(f"residual-{name}", "vq_vae", vq_vae(residual), steps=steps)
quantised("fsq", "vq_vae", vq_vae(dict(kind="finite_scalar", levels=[4, 5, 2, 8])))
for name, group in (("whole", 8), ("groups", 2)):
    lookup = dict(kind="lookup_free", dim=5, commitment_weight=0.3, entropy_weight=0.4,
                  diversity_weight=0.7, temperature=1.5, group_dim=group)
    quantised(f"lfq-{name}", "vq_vae", vq_vae(lookup), of="lfq")
both = dict(top=table("moving_average", 5), bottom=table("gradient", dim=2))
quantised("vq-2", "vq_vae_2", dict(
    both, shape=shape(1, 8), bottom_strides=[2], top_strides=[2], channels=4, residual_blocks=1,
    residual_channels=2, likelihood="bernoulli", activation="tanh"))


# --- Hierarchical models -------------------------------------------------------------------------

def normals(seed, count, purpose="", index=0):
    """The first normal numbers of aigc's generator: ChaCha with 12 rounds (`rng.py`) and the
    ziggurat of Doornik 2005 with 256 layers. None where one of them takes more than the first
    comparison."""
    key = hashlib.sha256(struct.pack("<QQ", seed, index) + purpose.encode()).digest()
    words = (word for counter in itertools.count() for word in block(key, counter))
    r = 3.654152885361008796
    def f(x): return math.exp(-x * x / 2)
    area = r * f(r) + math.sqrt(math.pi / 2) * math.erfc(r / math.sqrt(2))
    edges = [area / f(r), r]
    while len(edges) < 256:
        edges.append(math.sqrt(-2 * math.log(area / edges[-1] + f(edges[-1]))))
    edges.append(0.0)
    drawn = []
    while len(drawn) < count:
        bits = next(words) | next(words) << 32
        layer, uniform = bits & 255, (bits >> 12) / 2 ** 51 - 1
        drawn.append(uniform * edges[layer])
        if abs(drawn[-1]) >= edges[layer + 1]: return None
    return torch.tensor(drawn, dtype=torch.float64).float()


# The numbers that a test of crates/aigc-core/src/rng/mod.rs states.
assert normals(7, 2, "noise", 3).view(torch.int32).tolist() == [1052260055, 3218926847 - 2 ** 32]


class Block(nn.Module):
    """Child 2021, fig. 3."""
    def __init__(s, inputs, level, outputs, side, act, residual=False):
        super().__init__()
        hidden, k = level["hidden_channels"], 1 if side == 1 else 3
        s.act, s.residual = act, residual
        s.reduce = nn.Conv2d(inputs, hidden, 1)
        s.first = nn.Conv2d(hidden, hidden, k, padding=k // 2)
        s.second = nn.Conv2d(hidden, hidden, k, padding=k // 2)
        s.expand = nn.Conv2d(hidden, outputs, 1)

    def forward(s, x):
        y = x
        for conv in (s.reduce, s.first, s.second, s.expand): y = conv(s.act(y))
        return x + y if s.residual else y


class Group(nn.Module):
    def __init__(s, level, side, act):
        super().__init__()
        c, z = level["channels"], level["latent_channels"]
        s.latents = z
        s.prior = Block(c, level, 2 * z + c, side, act)
        s.posterior = Block(2 * c, level, 2 * z, side, act)
        s.project = nn.Conv2d(z, c, 1)
        s.block = Block(c, level, c, side, act, residual=True)

    def forward(s, hidden, features, noise):
        """Child 2021, fig. 3; the posterior relative to the prior: Vahdat and Kautz 2020, sec. 3.2,
        with a difference of means in deviations of the prior."""
        def deviation(x): return (5 * torch.tanh(x / 5)).exp()
        mean, log_std, update = s.prior(hidden).split([s.latents, s.latents, hidden.shape[1]], 1)
        prior = Normal(mean, deviation(log_std))
        delta, log_rho = s.posterior(torch.cat([hidden, features], 1)).chunk(2, 1)
        posterior = Normal(mean + prior.scale * delta, prior.scale * deviation(log_rho))
        z = posterior.mean + posterior.stddev * noise
        hidden = s.block(hidden + update + s.project(z))
        return hidden, z, total(kl_divergence(posterior, prior))


class Level(nn.Module):
    def __init__(s, level, side, act, coarser):
        super().__init__()
        s.side, s.latents = side, level["latent_channels"]
        s.groups = nn.ModuleList([Group(level, side, act) for _ in range(level["groups"])])
        if coarser:
            s.up = nn.ConvTranspose2d(coarser["channels"], level["channels"], coarser["stride"],
                                      coarser["stride"])


class Down(nn.Module):
    def __init__(s, inputs, level, side, act):
        super().__init__()
        c, stride = level["channels"], level["stride"]
        s.conv = nn.Conv2d(inputs, c, *((4, 2, 1) if stride == 2 else (stride, stride)))
        s.blocks = nn.ModuleList([Block(c, level, c, side, act, residual=True)
                                  for _ in range(level["encoder_blocks"])])


class Hierarchical(nn.Module):
    def __init__(s, config):
        super().__init__()
        s.act, levels = ACTIVATIONS[config["activation"]], config["levels"]
        images, side, inputs = config["shape"]["channels"], config["shape"]["height"], 0
        s.down, s.levels = nn.ModuleList(), nn.ModuleList()
        for level, coarser in zip(levels, [*levels[1:], None]):
            side //= level["stride"]
            s.down.append(Down(inputs or images, level, side, s.act))
            s.levels.append(Level(level, side, s.act, coarser))
            inputs = level["channels"]
        s.start = nn.Parameter(torch.randn(1, inputs, side, side))
        if config["num_classes"]:
            s.classes = nn.Parameter(torch.randn(config["num_classes"], inputs))
        if config.get("vector_dim"):
            s.vectors = nn.Linear(config["vector_dim"], inputs, bias=False)
        finest = levels[0]
        s.output = nn.ConvTranspose2d(finest["channels"], images, finest["stride"],
                                      finest["stride"])
        # Posteriors that differ from their priors, and priors that depend on the groups before.
        with torch.no_grad():
            for name, p in s.named_parameters():
                if name.endswith("weight"): p *= 1.6

    def dims(s):
        """Latent maps of all groups, coarsest first."""
        return [(level.latents, level.side, level.side)
                for level in reversed(s.levels) for _ in level.groups]

    def forward(s, x, noise, labels, vectors=None):
        x, features = 2 * x - 1, []
        for level in s.down:
            x = level.conv(x)
            for block in level.blocks: x = block(x)
            features.append(x)
        hidden = s.start.expand(len(x), -1, -1, -1)
        if labels: hidden = hidden + s.classes[labels][:, :, None, None]
        if vectors is not None: hidden = hidden + s.vectors(vectors)[:, :, None, None]
        latents, divergences, noise = [], [], list(noise)
        for level, feature in zip(reversed(s.levels), reversed(features)):
            if hasattr(level, "up"): hidden = level.up(hidden)
            for group in level.groups:
                hidden, z, kl = group(hidden, feature, noise.pop(0))
                latents.append(z.flatten(1))
                divergences.append(kl)
        return s.output(s.act(hidden)), torch.cat(latents, 1), torch.stack(divergences)


def hierarchical(name, config, beta=1.0, free_bits=0.0, labels=None):
    torch.manual_seed(A.seed)
    made = Hierarchical(config).double()
    x, width = pixels(config), config.get("vector_dim")
    given = dict(vectors=exact(torch.randn(BATCH, width))) if width else {}
    store_model(name, made.state_dict())
    sizes = [BATCH * math.prod(dims) for dims in made.dims()]
    draws = ((seed, normals(seed, sum(sizes))) for seed in itertools.count(A.seed))
    seed, drawn = next((seed, drawn) for seed, drawn in draws if drawn is not None)
    parts = zip(drawn.double().split(sizes), made.dims())
    images = (x.float() / 255).double()
    noise = [part.view(BATCH, *dims) for part, dims in parts]
    output, z, kl = made(images, noise, labels, **given)
    groups = kl.mean(1)
    assert groups.min() > 0.03, groups
    if free_bits:   # Kingma et al. 2016, eq. 15; some groups are below the limit, some above it.
        assert groups.min() < free_bits - 0.01 and free_bits + 0.01 < groups.max(), groups
    terms = dict(reconstruction=-log_prob(config["likelihood"], output, images).mean(),
                 kl=groups.sum())
    loss = terms["reconstruction"] + beta * groups.clamp(min=free_bits).sum()
    loss.backward()
    store(f"cases/{name}/0", dict(gradients(made), **given, x=x, noise=drawn, z=z, kl=kl))
    step = dict(loss=number(loss), terms={key: number(term) for key, term in terms.items()})
    CASES.append(dict(name=name, kind="hierarchical", model=name, config=config, beta=beta,
                      free_bits=free_bits, labels=labels, seed=seed, steps=[step]))


def level(stride, channels, groups, latent_channels, encoder_blocks=1):
    return dict(stride=stride, channels=channels, hidden_channels=3, encoder_blocks=encoder_blocks,
                groups=groups, latent_channels=latent_channels)


# Maps of 4x4 and 2x2.
hierarchical("hierarchical", dict(
    shape=shape(1, 8), levels=[level(2, 4, 2, 2), level(2, 5, 1, 3)], likelihood="bernoulli",
    activation="silu", num_classes=None))
# Maps of 4x4 and of one pixel, which has kernels of one pixel.
hierarchical("hierarchical-classes", dict(
    shape=shape(2, 8), levels=[level(2, 3, 1, 1, 2), level(4, 4, 2, 2, 0)], likelihood=GAUSSIAN,
    activation="gelu", num_classes=3), beta=1.5, free_bits=0.25, labels=[2, 0, 1, 1, 0])
# Maps of 3x3, whose vectors are added at each pixel.
hierarchical("hierarchical-vectors", dict(
    shape=shape(1, 6), levels=[level(2, 4, 2, 2)], likelihood="bernoulli", activation="tanh",
    num_classes=None, vector_dim=2), beta=0.5)

# --- Models with latent vectors: conditions, priors and flows ------------------------------------

class CrossAttention(nn.Module):
    """Vaswani et al. 2017: the hidden vector is the query, one head, a residual connection."""
    def __init__(s, hidden, width):
        super().__init__()
        s.query, s.output = (nn.Linear(hidden, hidden, bias=False) for _ in range(2))
        s.key, s.value = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        with torch.no_grad():   # weights that differ between the vectors
            for layer in (s.query, s.key): layer.weight *= 3

    def forward(s, hidden, states):
        scores = (s.key(states) @ s.query(hidden)[:, :, None]) / math.sqrt(hidden.shape[1])
        weights = torch.softmax(scores, 1)
        assert weights.min() < 0.2 and weights.max() > 0.5, weights
        return hidden + s.output((weights * s.value(states)).sum(1))


class Conditional(nn.Module):
    """One-hot classes, and then a vector, beside other vectors (Kingma et al. 2014); hidden states
    by cross-attention, before the activation."""
    def __init__(s, config):
        super().__init__()
        kind, s.config = config.get("condition", {}), config
        s.act, s.classes = ACTIVATIONS[config["activation"]], kind.get("num_classes") or 0
        s.beside = s.classes + (kind.get("vector_dim") or 0)
        s.dims, s.hidden, s.latent = (list(config["shape"].values()), config["hidden_dim"],
                                      config["latent_dim"])
        if kind.get("cross_attention_dim"):
            s.encoder_attention, s.decoder_attention = (
                CrossAttention(s.hidden, kind["cross_attention_dim"]) for _ in range(2))

    def concatenated(s, x, labels, vectors):
        parts = [x]
        if labels: parts.append(F.one_hot(torch.tensor(labels), s.classes).double())
        if vectors is not None: parts.append(vectors)
        return torch.cat(parts, 1)

    def attend(s, side, hidden, states):
        return hidden if states is None else getattr(s, f"{side}_attention")(hidden, states)

    def log_likelihood(s, z, x, **condition):
        return log_prob(s.config["likelihood"], s.decode(z, **condition), x)


class MlpVae(Conditional):
    def __init__(s, config):
        super().__init__(config)
        def linear(inputs, outputs): return nn.Linear(inputs, outputs)
        def rest(): return nn.ModuleList([linear(s.hidden, s.hidden)
                                          for _ in range(config["hidden_layers"] - 1)])
        s.encoder, s.encoder_hidden = linear(math.prod(s.dims) + s.beside, s.hidden), rest()
        s.mean, s.log_variance = linear(s.hidden, s.latent), linear(s.hidden, s.latent)
        s.decoder, s.decoder_hidden = linear(s.latent + s.beside, s.hidden), rest()
        s.output = linear(s.hidden, math.prod(s.dims))
        with torch.no_grad():   # posteriors that differ between samples
            for layer in (s.encoder, s.mean, s.output): layer.weight *= 3

    def layers(s, side, x, labels, vectors, states):
        x = getattr(s, side)(s.concatenated(x, labels, vectors))
        x = s.act(s.attend(side, x, states))
        for layer in getattr(s, f"{side}_hidden"): x = s.act(layer(x))
        return x

    def encode(s, x, labels=None, vectors=None, states=None):
        x = s.layers("encoder", x.flatten(1), labels, vectors, states)
        return s.mean(x), s.log_variance(x)

    def decode(s, z, labels=None, vectors=None, states=None):
        return s.output(s.layers("decoder", z, labels, vectors, states)).unflatten(1, s.dims)


class WideBlock(nn.Module):
    """He et al. 2016b, with two convolutions of 3x3 and no norm."""
    def __init__(s, width, act):
        super().__init__()
        s.act = act
        s.conv1, s.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(s, x): return x + s.conv2(s.act(s.conv1(s.act(x))))


class ConvVae(Conditional):
    """The classes are beside the encoder's last hidden vector, and beside the latents."""
    def __init__(s, config):
        super().__init__(config)
        sizes = [s.dims[0], *config["channels"]]
        pairs, factor = list(zip(sizes, sizes[1:])), 2 ** len(config["channels"])
        s.top = [sizes[-1], s.dims[1] // factor, s.dims[2] // factor]
        def level_blocks(width): return nn.ModuleList([WideBlock(width, s.act)
                                                       for _ in range(config["residual_blocks"])])
        s.down = nn.ModuleList([nn.Conv2d(i, o, 4, 2, 1) for i, o in pairs])
        s.up = nn.ModuleList([nn.ConvTranspose2d(o, i, 4, 2, 1) for i, o in reversed(pairs)])
        s.down_blocks = nn.ModuleList([level_blocks(width) for width in sizes[1:]])
        s.up_blocks = nn.ModuleList([level_blocks(width) for width in reversed(sizes[1:])])
        s.encoder = nn.Linear(math.prod(s.top), s.hidden)
        s.mean, s.log_variance = (nn.Linear(s.hidden + s.beside, s.latent) for _ in range(2))
        s.decoder = nn.Linear(s.latent + s.beside, s.hidden)
        s.unflatten = nn.Linear(s.hidden, math.prod(s.top))
        with torch.no_grad():
            for layer in (s.encoder, s.mean, s.unflatten): layer.weight *= 3

    def encode(s, x, labels=None, vectors=None, states=None):
        for conv, blocks in zip(s.down, s.down_blocks):
            x = conv(x)
            for block in blocks: x = block(x)
            x = s.act(x)
        x = s.act(s.attend("encoder", s.encoder(x.flatten(1)), states))
        x = s.concatenated(x, labels, vectors)
        return s.mean(x), s.log_variance(x)

    def decode(s, z, labels=None, vectors=None, states=None):
        x = s.attend("decoder", s.decoder(s.concatenated(z, labels, vectors)), states)
        x = s.unflatten(s.act(x)).unflatten(1, s.top)
        for blocks, conv in zip(s.up_blocks, s.up):
            for block in blocks: x = block(x)
            x = conv(s.act(x))
        return x


class Coupling(nn.Module):
    def __init__(s, widths):
        super().__init__()
        s.layers = nn.ModuleList([nn.Linear(i, o) for i, o in zip(widths, widths[1:])])


class RealNvp(nn.Module):
    """Dinh et al. 2017, eq. 4-8: the halves take turns; the log scale s is m tanh(s/m)."""
    def __init__(s, config, dim):
        super().__init__()
        s.config, s.act, s.first = config, ACTIVATIONS[config["activation"]], dim - dim // 2
        s.layers = nn.ModuleList()
        for index in range(config["num_layers"]):
            kept = dim - s.first if index % 2 else s.first
            inputs = kept + (config["context_dim"] or 0)
            s.layers.append(Coupling([inputs, *config["hidden_dims"], 2 * (dim - kept)]))

    def each(s, x, context, index, layer, affine):
        """One layer: `affine` of the other half, the shift and the log scale."""
        a, b = x[:, :s.first], x[:, s.first:]
        kept, other = (b, a) if index % 2 else (a, b)
        h = kept if context is None else torch.cat([kept, context], 1)
        for linear in layer.layers[:-1]: h = s.act(linear(h))
        shift, scale = layer.layers[-1](h).chunk(2, 1)
        scale = s.config["max_log_scale"] * torch.tanh(scale / s.config["max_log_scale"])
        other = affine(other, shift, scale)
        return torch.cat([other, kept] if index % 2 else [kept, other], 1), scale.sum(1)

    def forward(s, x, context=None):
        log_det = 0
        for index, layer in enumerate(s.layers):
            x, term = s.each(x, context, index, layer, lambda x, t, s: x * s.exp() + t)
            log_det = log_det + term
        return x, log_det

    def inverse(s, y):
        log_det = 0
        for index, layer in reversed(list(enumerate(s.layers))):
            y, term = s.each(y, None, index, layer, lambda y, t, s: (y - t) * (-s).exp())
            log_det = log_det - term
        return y, log_det


def log_normal(z, mean=torch.zeros(()), logvar=torch.zeros(())):
    return Normal(mean.double(), (logvar.double() / 2).exp()).log_prob(z).sum(-1)


class FlowPrior(nn.Module):
    def __init__(s, config, dim):
        super().__init__()
        s.flow = RealNvp(config, dim)

    def log_prob(s, z, _):
        x, log_det = s.flow.inverse(z)
        return log_normal(x) + log_det


class Mixture(nn.Module):
    """Of Gaussians; of full covariances with the precisions (I + L)^T diag(e^-2s) (I + L)."""
    def __init__(s, config, dim):
        super().__init__()
        k = config["n_components"]
        s.weight_logits = nn.Parameter(torch.randn(k))
        s.mean = nn.Parameter(torch.randn(k, dim))
        s.log_scale = nn.Parameter(torch.randn(k, dim) / 2)
        s.is_full = config["covariance_type"] == "full"
        # What is not below the diagonal has no effect.
        if s.is_full: s.lower = nn.Parameter(torch.randn(k, dim, dim))

    def log_prob(s, z, _):
        if s.is_full:
            factor = torch.eye(s.mean.shape[1]).double() + s.lower.tril(-1)
            precision = factor.mT @ torch.diag_embed((-2 * s.log_scale).exp()) @ factor
            normal = torch.distributions.MultivariateNormal(s.mean, precision_matrix=precision)
            log_probs = normal.log_prob(z[:, None])
        else: log_probs = log_normal(z[:, None], s.mean, 2 * s.log_scale)
        return torch.logsumexp(torch.log_softmax(s.weight_logits, 0) + log_probs, 1)


class Vamp(nn.Module):
    """Tomczak and Welling 2018, eq. 9."""
    def __init__(s, config, sample_shape):
        super().__init__()
        s.range, shape = config["range"], (config["n_components"], *sample_shape)
        # Some outside of the range, where hardtanh has no gradient.
        s.pseudo_inputs = nn.Parameter(1.5 * torch.rand(shape) - 0.25)

    def log_prob(s, z, model):
        u = s.pseudo_inputs
        assert s.range == "sigmoid" or u.min() < -0.01 and u.max() > 1.01
        u = u.clamp(0, 1) if s.range == "hardtanh" else torch.sigmoid(u)
        mean, logvar = model.encode(u)
        return torch.logsumexp(log_normal(z[:, None], mean, logvar), 1) - math.log(len(u))


class Whole(nn.Module):
    """A model, and its prior or the flow of its posteriors."""
    def __init__(s, config, prior, flow):
        super().__init__()
        s.model = dict(mlp=MlpVae, conv=ConvVae)[config["kind"]](config)
        if prior: s.prior = make_prior(prior, s.model.latent, s.model.dims)
        if flow: s.flow = RealNvp(flow, s.model.latent)


def make_prior(config, dim, sample_shape=None):
    (kind, config), = config.items()
    if kind == "vamp": return Vamp(config, sample_shape)
    return dict(mixture=Mixture, flow=FlowPrior)[kind](config, dim)


LABELS = [2, 0, 1, 1, 0]


def seeded(count):
    """The first seed whose `count` normal numbers are known, and the numbers."""
    draws = ((seed, normals(seed, count)) for seed in itertools.count(A.seed))
    return next((seed, drawn) for seed, drawn in draws if drawn is not None)


def named(made, values):
    """By the names of the parameters of a model, whose own have no prefix if it is alone."""
    alone = not (hasattr(made, "prior") or hasattr(made, "flow"))
    return {key.removeprefix("model.") if alone else key: value for key, value in values.items()}


def latent(kind, name, config, beta=1.0, prior=None, flow=None):
    torch.manual_seed(A.seed)
    made = Whole(config, prior, flow).double()
    store_model(name, named(made, made.state_dict()))
    x, takes = pixels(config), config["condition"]
    labels = LABELS if "num_classes" in takes else None
    sizes = dict(vectors=[takes.get("vector_dim")], states=[4, takes.get("cross_attention_dim")])
    given = {n: exact(torch.randn(BATCH, *size)) for n, size in sizes.items() if size[-1]}
    condition = dict(given, labels=labels)
    seed, drawn = seeded(BATCH * config["latent_dim"])
    images, noise = (x.float() / 255).double(), drawn.double().view(BATCH, -1)
    mean, logvar = made.model.encode(images, **condition)
    z = mean + (logvar / 2).exp() * noise
    log_q, closed = log_normal(z, mean, logvar), 0.5 * (mean ** 2 + logvar.exp() - 1 - logvar)
    if flow:
        z, log_det = made.flow(z, torch.cat([mean, logvar], 1) if flow["context_dim"] else None)
        kl = log_q - log_det - log_normal(z)
    elif prior: kl = log_q - made.prior.log_prob(z, made.model)
    else: kl = closed.sum(1)
    terms = dict(reconstruction=-made.model.log_likelihood(z, images, **condition).mean(),
                 kl=kl.mean())
    loss = terms["reconstruction"] + beta * terms["kl"]
    loss.backward()
    tensors = dict(given, x=x, noise=drawn)
    grads = named(made, {n: p.grad for n, p in made.named_parameters()})
    store(f"cases/{name}/0", dict(tensors, **{f"grad.{n}": g for n, g in grads.items()}))
    step = dict(loss=number(loss), terms={key: number(term) for key, term in terms.items()})
    CASES.append(dict(name=name, kind=kind, model=name, config=config, beta=beta, labels=labels,
                      prior=prior, flow=flow, seed=seed, steps=[step]))


def mlp(layers=1, **condition):
    return dict(kind="mlp", shape=shape(1, 4), hidden_dim=8, hidden_layers=layers, latent_dim=3,
                likelihood="bernoulli", activation="tanh", condition=condition)


def conv(**condition):
    return dict(kind="conv", shape=shape(2, 8), channels=[3, 4], residual_blocks=1, hidden_dim=6,
                latent_dim=3, likelihood=GAUSSIAN, activation="silu", condition=condition)


latent("conditional", "mlp-classes", mlp(2, num_classes=3))
latent("conditional", "conv-classes", conv(num_classes=4), beta=1.5)
latent("conditional", "conv-vectors", conv(vector_dim=2))
latent("conditional", "mlp-hidden-states", mlp(2, cross_attention_dim=5))
latent("conditional", "conv-hidden-states", conv(cross_attention_dim=4))
latent("conditional", "mlp-all", mlp(num_classes=3, vector_dim=4, cross_attention_dim=2))


def flow(context_dim=None):
    return dict(kind="real_nvp", num_layers=3, hidden_dims=[5], activation="tanh",
                max_log_scale=2.0, context_dim=context_dim)


def mixture(kind): return dict(n_components=4, covariance_type=kind)


for bounds in ("hardtanh", "sigmoid"):
    vamp = dict(n_components=4, range=bounds, mean=0.05, std=0.01)
    latent("prior", f"vamp-{bounds}", mlp(), prior=dict(vamp=vamp))
latent("prior", "mixture-diagonal", mlp(), prior=dict(mixture=mixture("diagonal")), beta=0.5)
latent("prior", "mixture-full", mlp(), prior=dict(mixture=mixture("full")))
latent("prior", "flow-prior", mlp(), prior=dict(flow=flow()))
latent("flow", "flow-posterior", mlp(), flow=flow())
latent("flow", "flow-posterior-with-context", mlp(), flow=flow(context_dim=6))


def prior_alone(name, config, dim=3):
    """Maximum likelihood of a prior on given latents."""
    torch.manual_seed(A.seed)
    made, z = make_prior(config, dim).double(), exact(1.5 * torch.randn(7, dim))
    store_model(name, made.state_dict())
    loss = -made.log_prob(z, None).mean()
    loss.backward()
    store(f"cases/{name}/0", dict(gradients(made), z=z))
    CASES.append(dict(name=name, kind="prior_alone", model=name, prior=config,
                      steps=[dict(loss=number(loss), terms={})]))


for kind in ("diagonal", "full"): prior_alone(f"{kind}-alone", dict(mixture=mixture(kind)))
prior_alone("flow-alone", dict(flow=flow()))


# --- Priors over codes ---------------------------------------------------------------------------

class SelfAttention(nn.Module):
    def __init__(s, width, heads):
        super().__init__()
        s.heads, s.qkv, s.output = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(s, x):
        def split(part): return part.unflatten(2, (s.heads, -1)).transpose(1, 2)
        q, k, v = map(split, s.qkv(x).chunk(3, 2))
        scores = q @ k.mT / math.sqrt(q.shape[3])
        later = torch.ones(scores.shape[2:]).triu(1).bool()
        weights = torch.softmax(scores.masked_fill(later, -math.inf), 3)
        return s.output((weights @ v).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Before each part is a norm (Radford et al. 2019, sec. 2.3)."""
    def __init__(s, config):
        super().__init__()
        d, inner = config["d_model"], config["mlp_ratio"] * config["d_model"]
        s.norm1, s.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        s.attention = SelfAttention(d, config["n_head"])
        s.fc1, s.fc2 = nn.Linear(d, inner), nn.Linear(inner, d)

    def forward(s, x):
        x = x + s.attention(s.norm1(x))
        return x + s.fc2(F.gelu(s.fc1(s.norm2(x))))


def table(rows, width): return nn.Parameter(torch.randn(rows, width))


def embedded(table, codes, num_codes):
    """Of codes [batch, positions, codebooks], whose codebooks have rows of their own."""
    return table[codes + num_codes * torch.arange(codes.shape[2])]


class Above(nn.Module):
    """Razavi et al. 2019, sec. 3.2: features of the codes of the level above."""
    def __init__(s, config):
        super().__init__()
        d, s.codes, below = config["d_model"], config["above"], config["codes"]
        factor = below["height"] // s.codes["height"]
        s.embedding = table(s.codes["codebooks"] * s.codes["num_codes"], d)
        s.blocks = nn.ModuleList([WideBlock(d, F.gelu) for _ in range(config["above_blocks"])])
        s.upsample = nn.ConvTranspose2d(d, d, factor, factor)

    def forward(s, codes):
        x = embedded(s.embedding, codes, s.codes["num_codes"]).sum(2)
        x = x.transpose(1, 2).unflatten(2, (s.codes["height"], s.codes["width"]))
        for block in s.blocks: x = block(x)
        return s.upsample(x).flatten(2).transpose(1, 2)   # [batch, positions, width]


class CodePrior(nn.Module):
    """Row by row, and the codes of a position by codebook."""
    def __init__(s, config):
        super().__init__()
        d, codes, s.config = config["d_model"], config["codes"], config
        s.embedding, s.start = table(codes["codebooks"] * codes["num_codes"], d), table(1, d)
        s.rows, s.columns = table(codes["height"], d), table(codes["width"], d)
        s.books = table(codes["codebooks"], d)
        if config["num_classes"]: s.classes = table(config["num_classes"], d)
        if config["above"]: s.above = Above(config)
        s.blocks = nn.ModuleList([TransformerBlock(config) for _ in range(config["n_layer"])])
        s.norm = nn.LayerNorm(d)
        s.heads = nn.ModuleList([nn.Linear(d, codes["num_codes"])
                                 for _ in range(codes["codebooks"])])

    def forward(s, codes, labels, above):
        """-log p(codes), [batch]."""
        shape = s.config["codes"]
        before = embedded(s.embedding, codes, shape["num_codes"]).flatten(1, 2)[:, :-1]
        x = torch.cat([s.start.expand(len(codes), 1, -1), before], 1)
        place = s.rows[:, None, None] + s.columns[:, None] + s.books   # [row, column, book, width]
        x = x + place.flatten(0, 2)
        if labels is not None: x = x + s.classes[labels][:, None]
        if above is not None: x = x + s.above(above).repeat_interleave(shape["codebooks"], 1)
        for block in s.blocks: x = block(x)
        x, nll = s.norm(x), 0
        for book, head in enumerate(s.heads):
            logits = head(x[:, book::len(s.heads)])
            nll = nll + F.cross_entropy(logits.mT, codes[:, :, book], reduction="none").sum(1)
        return nll


def code_shape(height, width, codebooks, num_codes):
    return dict(height=height, width=width, codebooks=codebooks, num_codes=num_codes)


def code_prior(name, codes, above=None, num_classes=None):
    torch.manual_seed(A.seed)
    config = dict(codes=codes, above=above, num_classes=num_classes, d_model=8, n_layer=2,
                  n_head=2, mlp_ratio=2, dropout=0.0, above_blocks=1)
    made = CodePrior(config).double()
    store_model(name, made.state_dict())
    levels = [torch.randint(0, shape["num_codes"],
                            (BATCH, shape["height"] * shape["width"], shape["codebooks"]))
              for shape in (above, codes) if shape]
    labels = LABELS if num_classes else None
    nll = made(levels[-1], labels, levels[0] if above else None).mean()
    count = levels[-1][0].numel()
    loss = nll / count
    loss.backward()
    store(f"cases/{name}/0", gradients(made))
    terms = dict(nll=number(nll), bits_per_code=number(loss) / math.log(2))
    samples = [dict(levels=[level[i].flatten().tolist() for level in levels],
                    label=labels and labels[i]) for i in range(BATCH)]
    CASES.append(dict(name=name, kind="code_prior", model=name, config=config, samples=samples,
                      steps=[dict(loss=number(loss), terms=terms)]))


code_prior("codes", code_shape(2, 3, 1, 5))
code_prior("codes-of-two-codebooks", code_shape(2, 2, 2, 4), num_classes=3)
code_prior("codes-below-others", code_shape(2, 4, 2, 4), code_shape(1, 2, 2, 3), num_classes=3)

about = dict(seed=A.seed, torch=torch.__version__.split("+")[0])
# One entry: the order of several would change from run to run.
save_file(TENSORS, A.out, dict(json=json.dumps(dict(about, cases=CASES))))
print(f"{len(CASES)} cases")
