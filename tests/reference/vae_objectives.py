"""A step of every objective of VAEs in PyTorch, for `tests/vae_objectives.rs`.

    pip install torch numpy safetensors
    python vae_objectives.py ../fixtures/vae/objectives.safetensors [--seed 0]

Written from the papers, not from this repository. Computed in float64 from numbers that float32
holds exactly; what is stored is float32. One file, with JSON in its metadata under `json`:

- `models`: by name, `vae` (the configuration) and, of two networks, `discriminator`. Tensors:
  `models/NAME/before.*`, the weights, and `models/NAME/x`, pixels [batch, channels, height, width].
- `cases`: what is expected of a model, with tensors `cases/NAME/*`.

Kind "objective": one pass of an objective with the configuration `objective` in step `step`, its
`loss` and its metrics `terms`, and `grad.*`, the gradients of the loss; a parameter that the loss
does not depend on has none. Random numbers are given: the reader uses a model whose draws are the
rows of `draws`, in order: those of the posterior, then those of the prior. With `groups`, every
dimension of the latents is a group of its own.

An objective of two networks has a phase of each. Between them, `vae` makes a step of plain gradient
descent with the rate `rate`. Of the second phase are `second` (loss and terms), `second.x` (without
it, the first phase's), `second.draws`, `second.grad.*`, and `permutations`: for each dimension, the
rows of the batch in the order in which the permuted latents have them.

Kind "likelihood": `output` of a decoder, samples `x`, `log_prob` [batch], and `grad.output`, the
gradient of the sum of log_prob; `likelihood` is the type of the distribution.
"""
import argparse, json, math
import torch, torch.nn as nn, torch.nn.functional as F
from safetensors.torch import save_file
from torch.distributions import ContinuousBernoulli, Normal

P = argparse.ArgumentParser()
P.add_argument("out")
P.add_argument("--seed", type=int, default=0)
A = P.parse_args()
torch.set_num_threads(1)
BATCH, LATENT, HIDDEN = 6, 3, 12
TENSORS, MODELS, CASES = {}, {}, []


def store(prefix, tensors):
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        tensor = tensor if tensor.dtype == torch.uint8 else tensor.float()
        TENSORS[f"{prefix}/{name}"] = tensor.clone().contiguous()


def number(x): return float(x.detach()) if torch.is_tensor(x) else float(x)
def draw(*shape): return torch.randn(*shape).double()
def images(x): return (x.float() / 255).double()
def normalized(x): return 2 * x - 1


# --- Distributions -------------------------------------------------------------------------------

def log_normal(z, mean, logvar):
    return -0.5 * (math.log(2 * math.pi) + logvar + (z - mean) ** 2 / logvar.exp())


def log_prior(z): return log_normal(z, torch.zeros_like(z), torch.zeros_like(z)).sum(-1)
def kl_by_dim(mean, logvar): return 0.5 * (mean ** 2 + logvar.exp() - 1 - logvar)
def kl_closed_form(mean, logvar): return kl_by_dim(mean, logvar).sum(1)
def reparameterize(mean, logvar, noise): return mean + (0.5 * logvar).exp() * noise
def total(terms): return terms.flatten(1).sum(1)


def soft_clamp(x, low, high):
    """Chua et al. 2018, app. A.1."""
    above = F.softplus(x - low) + low
    return high - F.softplus(high - above)


def logistic_mixture(output, x, k):
    """PixelCNN++, Salimans et al. 2017, eq. 1-3. Channels of `output`: k logits; k means for each
    channel; k logarithms of scales for each channel; k coefficients for each pair of channels."""
    c = x.shape[1]
    x = normalized(x)[:, :, None]   # [batch, channel, 1, height, width]
    def split(start, count):
        return output[:, start * k:(start + count) * k].unflatten(1, (count, k))
    log_pi, means = torch.log_softmax(split(0, 1)[:, 0], 1), split(1, c)
    log_scales = soft_clamp(split(1 + c, c), -7.0, 7.0)
    pairs = torch.tanh(split(1 + 2 * c, c * (c - 1) // 2)) if c > 1 else None
    log_prob, pair = 0, 0
    for channel in range(c):
        mean = means[:, channel]
        for before in range(channel):
            mean, pair = mean + pairs[:, pair] * x[:, before], pair + 1
        v, s = x[:, channel], log_scales[:, channel].exp()
        upper, lower = (v - mean + 1 / 255) / s, (v - mean - 1 / 255) / s
        # The difference of two values of the distribution function; above the mean, mirrored, since
        # small numbers lose nothing in a difference.
        above = v > mean
        a, b = torch.where(above, -lower, upper), torch.where(above, -upper, lower)
        inside = torch.log(torch.sigmoid(a) - torch.sigmoid(b))
        edge = torch.where((v < -0.999).expand_as(inside), F.logsigmoid(upper), inside)
        log_prob = log_prob + torch.where((v > 0.999).expand_as(inside), F.logsigmoid(-lower), edge)
    return total(torch.logsumexp(log_pi + log_prob, 1))


def log_prob(kind, output, x):
    """log p(x|z), [batch], for the output of a decoder, [batch, channels, height, width]."""
    c = x.shape[1]
    if kind == "bernoulli":   # A grey pixel counts as a probability.
        return -total(F.binary_cross_entropy_with_logits(output, x, reduction="none"))
    if kind == "continuous_bernoulli":
        # `lims` close together: the exact formula in float64 wherever it does not cancel.
        return total(ContinuousBernoulli(logits=output, lims=(0.4995, 0.5005)).log_prob(x))
    if kind == "learned_gaussian":
        deviation = soft_clamp(output[:, c:], -6.0, 4.0).exp()
        return total(Normal(output[:, :c], deviation).log_prob(x))
    if kind == "optimal_gaussian":
        # sigma-VAE, Rybkin et al. 2021, eq. 3: the maximum-likelihood deviation of the batch; its
        # derivative is 0 there, so that differentiating through it changes nothing.
        return total(Normal(output, ((x - output) ** 2).mean().sqrt()).log_prob(x))
    if "gaussian" in kind:
        return total(Normal(output, kind["gaussian"]).log_prob(x))
    return logistic_mixture(output, x, kind["logistic_mixture"]["components"])


def output_channels(kind, c):
    if kind == "learned_gaussian": return 2 * c
    if "logistic_mixture" in kind:
        return kind["logistic_mixture"]["components"] * (c + 1) * (c + 2) // 2
    return c


# --- Models --------------------------------------------------------------------------------------

class Mlp(nn.Module):
    def __init__(s, likelihood="bernoulli", channels=1, side=4):
        super().__init__()
        s.likelihood, s.shape = likelihood, (channels, side, side)
        s.config = dict(kind="mlp", shape=dict(channels=channels, height=side, width=side),
                        hidden_dim=HIDDEN, latent_dim=LATENT, likelihood=likelihood,
                        activation="tanh")
        s.outputs, values = output_channels(likelihood, channels), channels * side * side
        s.encoder = nn.Linear(values, HIDDEN)
        s.mean, s.log_variance = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)
        s.decoder, s.output = nn.Linear(LATENT, HIDDEN), nn.Linear(HIDDEN, s.outputs * side * side)
        # Posteriors that differ between samples: with PyTorch's initial weights they hardly do.
        with torch.no_grad():
            for layer in (s.encoder, s.mean, s.output): layer.weight *= 3

    def encode(s, x):
        h = torch.tanh(s.encoder(x.flatten(1)))
        return s.mean(h), s.log_variance(h)

    def decode(s, z):
        return s.output(torch.tanh(s.decoder(z))).unflatten(1, (s.outputs, *s.shape[1:]))

    def log_likelihood(s, z, x): return log_prob(s.likelihood, s.decode(z), x)


class LatentDiscriminator(nn.Module):
    config = dict(latent_dim=LATENT, hidden_dim=10, num_layers=2, activation=dict(leaky_relu=0.2))

    def __init__(s):
        super().__init__()
        s.layers = nn.ModuleList([nn.Linear(LATENT, 10), nn.Linear(10, 10)])
        s.output = nn.Linear(10, 1)
        with torch.no_grad():   # logits of both signs
            for layer in (*s.layers, s.output): layer.weight *= 3
            s.output.bias += 3

    def forward(s, z):
        for layer in s.layers: z = F.leaky_relu(layer(z), 0.2)
        return s.output(z).squeeze(1)


class Judge(nn.Module):
    """Two logits per image; the hidden layer is its features."""
    config = dict(pixels=16, hidden_dim=5, logits=2)

    def __init__(s):
        super().__init__()
        s.hidden, s.output = nn.Linear(16, 5), nn.Linear(5, 2)
        with torch.no_grad(): s.output.weight *= 6   # logits on both sides of the hinge

    def features(s, x): return torch.tanh(s.hidden(x.flatten(1)))
    def forward(s, x): return s.output(s.features(x))


class Two(nn.Module):
    def __init__(s, discriminator):
        super().__init__()
        s.vae, s.discriminator = Mlp(), discriminator


MAKE = {"mlp": Mlp, "factor": lambda: Two(LatentDiscriminator()),
        "adversarial": lambda: Two(Judge())}


def model(name):
    """A new copy of a model, and its images."""
    torch.manual_seed(A.seed)
    made = MAKE[name]()
    before = {f"before.{n}": p.detach().clone() for n, p in made.named_parameters()}
    vae = made.vae if isinstance(made, Two) else made
    x = torch.randint(0, 256, (BATCH, *vae.shape), dtype=torch.uint8)
    if name not in MODELS:
        MODELS[name] = dict(vae=vae.config)
        if isinstance(made, Two): MODELS[name]["discriminator"] = made.discriminator.config
        store(f"models/{name}", dict(before, x=x))
    return made.double(), images(x)


def gradients(made, prefix=""):
    parameters = made.named_parameters()
    return {f"{prefix}grad.{n}": p.grad for n, p in parameters if p.grad is not None}


def result(loss, terms):
    return dict(loss=number(loss), terms={name: number(term) for name, term in terms.items()})


def objective(name, of, config, compute, draws, step=0, **more):
    """One case. `compute(model, x)` returns the loss and the terms."""
    made, x = model(of)
    loss, terms = compute(made, x)
    loss.backward()
    store(f"cases/{name}", dict(gradients(made), draws=torch.cat(draws)))
    CASES.append(dict(name=name, kind="objective", model=of, objective=config, step=step,
                      **result(loss, terms), **more))


RATE = 0.05


def two_players(name, of, config, first, second, draws, step=0, tensors={}, **more):
    """One case. `first` is as `compute` above; `second(model)` returns loss and terms of the
    discriminator, after a step of the VAE."""
    made, x = model(of)
    loss, terms = first(made, x)
    loss.backward()
    kept = {n: g.clone() for n, g in gradients(made).items() if n.startswith("grad.vae.")}
    with torch.no_grad():
        for p in made.vae.parameters(): p -= RATE * p.grad
    made.zero_grad()
    after, after_terms = second(made)
    if after.requires_grad: after.backward()
    assert all(p.grad is None for p in made.vae.parameters())
    store(f"cases/{name}", dict(kept, **gradients(made, "second."), **tensors,
                                draws=torch.cat(draws)))
    CASES.append(dict(name=name, kind="objective", model=of, objective=config, step=step, rate=RATE,
                      second=result(after, after_terms), **result(loss, terms), **more))


# --- The ELBO and its variants -------------------------------------------------------------------

def kl_weight(w, step):
    """The weight of a step: the linear rise of Bowman et al. 2016, the cycles of Fu et al. 2019.
    The first step of a rise is its first share, not 0: step s of a cycle of c steps has
    tau = (s + 1)/c."""
    if "cycle" in w:
        c, r = w["cycle"]["cycle_steps"], w["cycle"]["rising_fraction"]
        return w["value"] * min(1.0, (step % c + 1) / c / r)
    n = w["warmup_steps"]
    return w["value"] * min(1.0, (step + 1) / n if n else 1.0)


def mmd_squared(z, p, m):
    """InfoVAE, Zhao et al. 2017: the kernel is a function of |x - y|^2 / 2d, summed over scales."""
    d = z.shape[1]
    def kernel(a, b):
        r2 = ((a[:, None] - b[None]) ** 2).sum(2) / (2 * d)
        if m["kernel"] == "rbf": return sum(torch.exp(-r2 / s) for s in m["scales"])
        return sum(s / (s + r2) for s in m["scales"])
    def within(a):
        k, n = kernel(a, a), len(a)
        if not m["unbiased"]: return k.mean()
        return (k.sum() - k.diagonal().sum()) / (n * (n - 1))
    return within(z) + within(p) - 2 * kernel(z, p).mean()


DIVERGENCES = {}   # divergences of the cases, to assert that the cases cover both sides of a limit


def vae(name, kl, step=0, free_bits=0.0, mmd=None, groups=False, of="mlp"):
    torch.manual_seed(A.seed + 1)
    noise, prior = draw(BATCH, LATENT), draw(BATCH, LATENT)

    def compute(made, x):
        mean, logvar = made.encode(x)
        z = reparameterize(mean, logvar, noise)
        reconstruction = -made.log_likelihood(z, x).mean()
        by_dim = kl_by_dim(mean, logvar).mean(0)
        # The groups of Kingma et al. 2016, eq. 15, averaged over the batch: all, or one dimension.
        parts = by_dim if groups else by_dim.sum()[None]
        DIVERGENCES[name] = parts.detach()
        divergence = parts.sum()
        counted = parts.clamp(min=free_bits).sum() if free_bits else divergence
        if "weighted" in kl: term = kl_weight(kl["weighted"], step) * counted
        else:   # Burgess et al. 2018
            c = kl["capacity"]
            capacity = c["max_nats"] * min(1.0, (step + 1) / c["steps"])
            term = c["gamma"] * (counted - capacity).abs()
        terms = dict(reconstruction=reconstruction, kl=divergence)
        if mmd is None: return reconstruction + term, terms
        terms["mmd"] = mmd_squared(z, prior, mmd)
        weight = mmd["alpha"] + mmd["lambda"] - 1
        return reconstruction + (1 - mmd["alpha"]) * term + weight * terms["mmd"], terms

    config = dict(kind="vae", kl=kl, free_bits=free_bits, mmd=mmd)
    more = dict(kl_weight=kl_weight(kl["weighted"], step)) if "weighted" in kl else {}
    draws = [noise, prior] if mmd else [noise]
    objective(name, of, config, compute, draws, step, groups=groups, **more)


def weighted(value, warmup_steps=0, **cycle):
    return dict(weighted=dict(value=value, warmup_steps=warmup_steps, **cycle))


vae("elbo", weighted(1.0))
vae("beta", weighted(4.0))
MIXTURE = dict(logistic_mixture=dict(components=2))
for name, kind, *shape in (("continuous-bernoulli", "continuous_bernoulli"),
                           ("gaussian", dict(gaussian=0.5)),
                           ("learned-gaussian", "learned_gaussian"),
                           ("optimal-gaussian", "optimal_gaussian"),
                           ("logistic-mixture", MIXTURE), ("logistic-mixture-3", MIXTURE, 3, 2)):
    MAKE[name] = lambda kind=kind, shape=shape: Mlp(kind, *shape)
    vae(f"beta-{name}", weighted(4.0), of=name)
for step in (0, 3, 7, 20): vae(f"warmup-{step}", weighted(2.0, warmup_steps=8), step=step)
for step in (0, 2, 3, 6, 8, 10):
    cycle = dict(cycle_steps=8, rising_fraction=0.5)
    vae(f"cyclical-{step}", weighted(2.0, cycle=cycle), step=step)
# Divergences below the capacity and, in the last case, above it.
for step, nats in ((1, 40.0), (9, 40.0), (3, 0.25)):
    capacity = dict(capacity=dict(gamma=10.0, max_nats=nats, steps=8))
    vae(f"capacity-{nats:g}-{step}", capacity, step=step)
assert 0.125 < DIVERGENCES["capacity-0.25-3"] and DIVERGENCES["capacity-40-1"] < 10
# Limits below and above the divergence; and, of groups, one that divides them.
for nats in (0.125, 64.0): vae(f"free-bits-{nats:g}", weighted(1.0), free_bits=nats)
assert 0.125 < DIVERGENCES["free-bits-64"] < 64
vae("elbo-groups", weighted(1.0), groups=True)
ordered = DIVERGENCES["elbo-groups"].sort().values
for name, low, high in (("low", 0, 1), ("high", 1, 2)):
    limit = round(float(ordered[low] + ordered[high]) / 2, 3)
    assert ordered[low] < limit < ordered[high], ordered
    vae(f"free-bits-groups-{name}", weighted(1.0), free_bits=limit, groups=True)
SCALES = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
for kernel in ("inverse_multiquadratic", "rbf"):
    for unbiased in (True, False):
        mmd = {"alpha": 0.25, "lambda": 8.0, "kernel": kernel, "scales": SCALES,
               "unbiased": unbiased}
        bias = "unbiased" if unbiased else "biased"
        vae(f"info-{kernel.replace('_', '-')}-{bias}", weighted(1.0), mmd=mmd)
wae = {"alpha": 1.0, "lambda": 10.0, "kernel": "inverse_multiquadratic", "scales": SCALES,
       "unbiased": True}
vae("wae", weighted(1.0), mmd=wae)


# --- The importance-weighted bound ---------------------------------------------------------------

def iwae(estimator, k=5):
    """Burda et al. 2016, eq. 8, and the estimators of Roeder et al. 2017 and Tucker et al. 2019."""
    torch.manual_seed(A.seed + 2)
    noise = draw(k, BATCH, LATENT)

    def compute(made, x):
        mean, logvar = made.encode(x)
        z = reparameterize(mean, logvar, noise)
        plain = estimator == "reparameterized"
        q = (mean, logvar) if plain else (mean.detach(), logvar.detach())
        log_p = made.log_likelihood(z.flatten(0, 1), x.repeat(k, 1, 1, 1)).view(k, BATCH)
        log_q = log_normal(z, *q).sum(-1)
        log_w = log_p + log_prior(z) - log_q
        w = torch.softmax(log_w.detach(), 0)
        if estimator == "doubly_reparameterized":
            # The gradient that reaches z is w * dlog w/dz; the encoder gets w^2.
            z.register_hook(lambda gradient: gradient * w[..., None])
        bound = (torch.logsumexp(log_w, 0) - math.log(k)).mean()
        effective = (1 / (w ** 2).sum(0)).mean()
        assert 1.2 < effective < k - 0.2, effective
        return -bound, dict(reconstruction=-log_p.mean(), kl=(log_q - log_prior(z)).mean(),
                            effective_samples=effective)

    config = dict(kind="iwae", num_samples=k, estimator=estimator)
    name = f"iwae-{estimator.replace('_', '-')}"
    objective(name, "mlp", config, compute, [noise.flatten(0, 1)])


for estimator in ("reparameterized", "sticking_the_landing", "doubly_reparameterized"):
    iwae(estimator)


# --- The total correlation -----------------------------------------------------------------------

def beta_tc(estimator, n=1000, alpha=0.5, beta=4.0, gamma=2.0):
    torch.manual_seed(A.seed + 3)
    noise = draw(BATCH, LATENT)

    def log_weights():
        """Chen et al. 2018, §3.1, and for the stratified estimate app. C.2. Row i is for a latent
        of sample i; its own posterior counts 1/N, the next one of the batch (N - M)/(N M)."""
        if estimator == "weighted":
            return torch.full((BATCH, BATCH), -math.log(n * BATCH), dtype=torch.float64)
        m = BATCH - 1
        w = torch.full((BATCH, BATCH), 1 / m, dtype=torch.float64)
        for i in range(BATCH):
            w[i, i], w[i, (i + 1) % BATCH] = 1 / n, (n - m) / (n * m)
        return w.log()

    def compute(made, x):
        mean, logvar = made.encode(x)
        z = reparameterize(mean, logvar, noise)
        reconstruction = -made.log_likelihood(z, x).mean()
        pairs, w = log_normal(z[:, None], mean[None], logvar[None]), log_weights()   # [z, q, dim]
        log_qz = torch.logsumexp(w + pairs.sum(2), 1)
        log_product = torch.logsumexp(w[:, :, None] + pairs, 1).sum(1)
        log_q = log_normal(z, mean, logvar).sum(1)
        information = (log_q - log_qz).mean()
        correlation = (log_qz - log_product).mean()
        divergence = (log_product - log_prior(z)).mean()
        terms = dict(reconstruction=reconstruction, kl=kl_closed_form(mean, logvar).mean(),
                     mutual_information=information, total_correlation=correlation,
                     dimension_wise_kl=divergence)
        loss = reconstruction + alpha * information + beta * correlation + gamma * divergence
        return loss, terms

    config = dict(kind="beta_tc", dataset_size=n, alpha=alpha, beta=beta, gamma=gamma,
                  estimator=estimator)
    objective(f"beta-tc-{estimator}", "mlp", config, compute, [noise])


for estimator in ("weighted", "stratified"): beta_tc(estimator)


def factor(gamma=6.0):
    """Both phases of Kim and Mnih 2018, algorithm 2; one logit in place of the two of the paper.
    The second batch is smaller than the first, to have few permutations."""
    torch.manual_seed(A.seed + 4)
    noise, others_noise, kept = draw(BATCH, LATENT), draw(3, LATENT), []
    others = torch.randint(0, 256, (3, 1, 4, 4), dtype=torch.uint8)
    permutations = [[1, 2, 0], [0, 2, 1], [2, 0, 1]]

    def of_vae(made, x):
        mean, logvar = made.vae.encode(x)
        z = reparameterize(mean, logvar, noise)
        kept.append(z.detach())
        terms = dict(reconstruction=-made.vae.log_likelihood(z, x).mean(),
                     kl=kl_closed_form(mean, logvar).mean(),
                     total_correlation=made.discriminator(z).mean())   # log D/(1 - D): the logit
        loss = terms["reconstruction"] + terms["kl"] + gamma * terms["total_correlation"]
        return loss, terms

    def of_discriminator(made):
        with torch.no_grad():
            z = reparameterize(*made.vae.encode(images(others)), others_noise)
        columns = [z[permutation, dim] for dim, permutation in enumerate(permutations)]   # alg. 1
        real, fake = made.discriminator(kept[0]), made.discriminator(torch.stack(columns, 1))
        loss = -0.5 * (F.logsigmoid(real).mean() + F.logsigmoid(-fake).mean())
        accuracy = 0.5 * ((real > 0).double().mean() + (fake < 0).double().mean())
        return loss, dict(accuracy=accuracy)

    two_players("factor", "factor", dict(kind="factor", gamma=gamma), of_vae, of_discriminator,
                [noise], tensors={"second.x": others, "second.draws": others_noise},
                permutations=permutations)


factor()


# --- Adversarial training ------------------------------------------------------------------------

def adversarial(name, config, step=0):
    """VAE-GAN (Larsen et al. 2016) and VQGAN (Esser et al. 2021, eq. 4-7) with a perceptual
    distance of squared pixels; the encoder also gets the gradient of the adversarial term."""
    torch.manual_seed(A.seed + 5)
    noise, prior, kept = draw(BATCH, LATENT), draw(BATCH, LATENT), {}
    started, hinge = step >= config["start_step"], config["loss"] == "hinge"

    def of_vae(made, x):
        mean, logvar = made.vae.encode(x)
        z = reparameterize(mean, logvar, noise)
        decoded, real = torch.sigmoid(made.vae.decode(z)), normalized(x)
        fake, d = normalized(decoded), made.discriminator
        if config["reconstruction"] == "l1": reconstruction = (decoded - x).abs().mean()
        elif config["reconstruction"] == "l2": reconstruction = ((decoded - x) ** 2).mean()
        else: reconstruction = -made.vae.log_likelihood(z, x).mean()
        kl = kl_closed_form(mean, logvar).mean()
        terms = dict(reconstruction=reconstruction, kl=kl)
        distance = ((fake ** 2 - real ** 2) ** 2).flatten(1).mean(1).mean()
        terms["perceptual"] = config["perceptual_weight"] * distance
        similar = reconstruction + terms["perceptual"]
        if started and config["feature_weight"]:
            features = ((d.features(fake) - d.features(real)) ** 2).mean(1).mean()
            terms["features"] = config["feature_weight"] * features
            similar = similar + terms["features"]
        loss = similar + config["kl_weight"] * kl
        if not started: return loss, terms
        if config["prior_samples"]:
            fake = torch.cat([fake, normalized(torch.sigmoid(made.vae.decode(prior)))])
        kept["real"], kept["fake"] = real, fake.detach()
        logits = d(fake)
        terms["adversarial"] = -logits.mean() if hinge else -F.logsigmoid(logits).mean()
        if "fixed" in config["adversarial_weight"]: weight = config["adversarial_weight"]["fixed"]
        else:
            last = made.vae.get_parameter(config["adversarial_weight"]["adaptive"]["last_layer"])
            def norm(of): return torch.autograd.grad(of, last, retain_graph=True)[0].norm()
            weight = (norm(similar) / (norm(terms["adversarial"]) + 1e-4)).clamp(max=1e4).detach()
            weight = weight * config["adversarial_weight"]["adaptive"]["factor"]
            terms["adversarial_weight"] = weight
        return loss + weight * terms["adversarial"], terms

    def of_discriminator(made):
        if not started: return torch.zeros(()), {}
        real, fake = made.discriminator(kept["real"]), made.discriminator(kept["fake"])
        if hinge:
            margins = torch.cat([1 - real, 1 + fake])
            assert margins.min() < 0 < margins.max() and margins.abs().min() > 1e-3, margins
            loss = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
        else: loss = -0.5 * (F.logsigmoid(real).mean() + F.logsigmoid(-fake).mean())
        accuracy = 0.5 * ((real > 0).double().mean() + (fake < 0).double().mean())
        return loss, dict(real=real.mean(), fake=fake.mean(), accuracy=accuracy)

    draws = [noise, prior] if started and config["prior_samples"] else [noise]
    two_players(name, "adversarial", dict(config, kind="adversarial"), of_vae, of_discriminator,
                draws, step)


gan = dict(reconstruction="negative_log_likelihood", kl_weight=1.5, perceptual_weight=2.0,
           feature_weight=0.7, loss="non_saturating", adversarial_weight=dict(fixed=0.3),
           prior_samples=True, start_step=0)
adaptive = dict(adaptive=dict(last_layer="output.weight", factor=0.8))
adversarial("adversarial-vae-gan", gan)
adversarial("adversarial-vqgan", dict(gan, reconstruction="l1", kl_weight=0.01, feature_weight=0.0,
                                      loss="hinge", adversarial_weight=adaptive,
                                      prior_samples=False))
adversarial("adversarial-adaptive", dict(gan, reconstruction="l2", adversarial_weight=adaptive))
adversarial("adversarial-before-start", dict(gan, start_step=3), step=2)


# --- Likelihoods ---------------------------------------------------------------------------------

def likelihood(name, kind, output, x):
    output = output.float().double().requires_grad_()
    value = log_prob(kind, output, x)
    value.sum().backward()
    tensors = {"output": output, "x": x, "log_prob": value, "grad.output": output.grad}
    store(f"cases/likelihood-{name}", tensors)
    CASES.append(dict(name=f"likelihood-{name}", kind="likelihood", likelihood=kind))


def levels(*shape):
    """Values of 8-bit pixels. The first three are 0, 255 and 128."""
    x = torch.randint(0, 256, shape)
    x.view(-1)[:3] = torch.tensor([0, 255, 128])
    return images(x)


torch.manual_seed(A.seed + 6)
shape = (3, 2, 3, 4)
x = levels(*shape)
# Logits on both sides of 0, close to it and far from it.
logits = 3 * torch.randn(shape)
logits.view(-1)[:6] = torch.tensor([0.0, 1e-3, -1e-2, 0.49, -0.51, 12.0])
likelihood("bernoulli", "bernoulli", logits, x)
likelihood("continuous-bernoulli", "continuous_bernoulli", logits, x)
likelihood("gaussian", dict(gaussian=0.5), torch.rand(shape), x)
means_and_deviations = torch.cat([torch.rand(shape), 3 * torch.randn(shape)], 1)
likelihood("learned-gaussian", "learned_gaussian", means_and_deviations, x)
likelihood("optimal-gaussian", "optimal_gaussian", torch.rand(shape), x)
for channels, k in ((1, 3), (3, 2)):
    kind, x = dict(logistic_mixture=dict(components=k)), levels(3, channels, 3, 4)
    output = torch.randn(3, output_channels(kind, channels), 3, 4)
    output[:, k:(1 + channels) * k] *= 0.5
    output[:, (1 + channels) * k:(1 + 2 * channels) * k] -= 2.0   # scales around e^-2
    likelihood(f"logistic-mixture-{channels}", kind, output, x)

about = dict(seed=A.seed, torch=torch.__version__.split("+")[0])
# One entry: the order of several would change from run to run.
save_file(TENSORS, A.out, dict(json=json.dumps(dict(about, models=MODELS, cases=CASES))))
print(f"{len(CASES)} cases")
