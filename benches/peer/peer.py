"""The PyTorch side of `compare`: the same workloads in PyTorch.

    pip install torch diffusers transformers torch-fidelity prdc
    python peer.py WORKLOAD [--threads 2] [--device cuda]

Reads a number of seconds per line, runs the workload for that time, and answers with one JSON line: the seconds of
every run, and the peak memory of the process. The docstring of a workload is its definition; our side does the same
work in float32, including the optimizer step, the gradient reset and reading the loss back.
"""
import argparse, json, os, resource, sys, time
import torch, torch.nn as nn, torch.nn.functional as F
sys.dont_write_bytecode = True  # No files beside the sources.
import sound, video
from quantizer import ResidualQuantizer

P = argparse.ArgumentParser(); P.add_argument("workload"); P.add_argument("--threads", type=int, default=os.cpu_count()); P.add_argument("--device", default="cpu")
A = P.parse_args(); torch.set_num_threads(A.threads); torch.manual_seed(0)
if A.device != "cpu": torch.set_default_device(A.device)  # it slows down every call
SYNC = torch.cuda.synchronize if A.device.startswith("cuda") else lambda: None


def vae(encoder, width, latent, decoder, shape, batch=128):
    mean, logvar, x = nn.Linear(width, latent), nn.Linear(width, latent), torch.rand(batch, *shape)
    optimizer = torch.optim.Adam([p for m in (encoder, mean, logvar, decoder) for p in m.parameters()], 1e-3)

    def step():
        h = encoder(x); m, l = mean(h), logvar(h)
        y = decoder(m + torch.randn_like(m) * (0.5 * l).exp())
        loss = (F.binary_cross_entropy_with_logits(y, x, reduction="sum") - 0.5 * (1 + l - m ** 2 - l.exp()).sum()) / batch
        optimizer.zero_grad(); loss.backward(); optimizer.step(); return loss.item()

    return step


def vae_mlp():
    """VAE 784-400-(20,20)-400-784, ReLU, Bernoulli likelihood on logits, batch 128, Adam 1e-3: one training step."""
    return vae(nn.Sequential(nn.Linear(784, 400), nn.ReLU()), 400, 20, nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784)), [784])


def vae_conv(batch=128, width=32, side=28):
    """VAE 1x28x28: conv 1-32-64 (4x4, stride 2, pad 1, ReLU), linear 3136-256 ReLU, two heads 256-32; decoder linear 32-256-3136 ReLU, transposed conv 64-32-1 (4x4, stride 2, pad 1); batch 128, Adam 1e-3: one step."""
    w, flat, top = width, 2 * width * (side // 4) ** 2, side // 4
    encoder = nn.Sequential(nn.Conv2d(1, w, 4, 2, 1), nn.ReLU(), nn.Conv2d(w, 2 * w, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(flat, 256), nn.ReLU())
    decoder = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, flat), nn.ReLU(), nn.Unflatten(1, (2 * w, top, top)), nn.ConvTranspose2d(2 * w, w, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(w, 1, 4, 2, 1))
    return vae(encoder, 256, 32, decoder, [1, side, side], batch)


class Residual(nn.Sequential):
    """The sum of the input and the layers' output."""

    def forward(self, x):
        return x + super().forward(x)


def adam(model, parameters):
    """Adam, after a check of the number of parameters, which our side does too. The convolutions
    get the format of memory that is faster here."""
    found = sum(p.numel() for p in model.parameters())
    assert found == parameters, f"{found} parameters, expected {parameters}"
    model.to(memory_format=torch.channels_last)
    return torch.optim.Adam(model.parameters(), 1e-3, fused=True)


def vae_residual_vq(batch=64, stages=4, rows=256, dim=64):
    """VQ-VAE 1x28x28: conv 1-64-128 (4x4, stride 2, pad 1, ReLU), 128-128 (3x3), two residual
    blocks of ReLU, conv 128-32 (3x3), ReLU, conv 32-128 (1x1), then ReLU and conv 128-64 (1x1);
    residual quantiser of 4 stages of 256 codes; decoder conv 64-128 (3x3), two residual blocks,
    ReLU, transposed conv 128-64-1 (4x4, stride 2, pad 1, ReLU between). Bernoulli likelihood on
    logits, commitment losses of weight 0.25. The codes follow moving averages of their vectors
    (decay 0.99, Laplace smoothing of 1e-5); a code that is used less than 3 % of the mean use
    becomes a vector of the batch. 658,625 parameters; batch 64, Adam 1e-3: one step."""
    relu = lambda: nn.ReLU(inplace=True)
    block = lambda: Residual(nn.ReLU(), nn.Conv2d(128, 32, 3, 1, 1), relu(), nn.Conv2d(32, 128, 1))
    encoder = nn.Sequential(
        nn.Conv2d(1, 64, 4, 2, 1), relu(), nn.Conv2d(64, 128, 4, 2, 1), relu(),
        nn.Conv2d(128, 128, 3, 1, 1), block(), block(), relu(), nn.Conv2d(128, dim, 1))
    decoder = nn.Sequential(
        nn.Conv2d(dim, 128, 3, 1, 1), block(), block(), relu(),
        nn.ConvTranspose2d(128, 64, 4, 2, 1), relu(), nn.ConvTranspose2d(64, 1, 4, 2, 1))
    optimizer = adam(nn.ModuleList([encoder, decoder]), 658_625)
    x, quantizer = torch.rand(batch, 1, 28, 28), ResidualQuantizer(stages, rows, dim, batch * 49)

    def step():
        z, commitment = quantizer(encoder(x).permute(0, 2, 3, 1).reshape(-1, dim))
        z = z.view(batch, 7, 7, dim).permute(0, 3, 1, 2)
        nats = F.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
        loss = (nats + 0.25 * commitment) / batch
        optimizer.zero_grad(); loss.backward(); optimizer.step(); quantizer.follow()
        return loss.item()

    return step


class Bottleneck(nn.Sequential):
    """1x1, two kxk and 1x1 convolutions, each after a SiLU."""

    def __init__(self, inputs, hidden, outputs, k):
        super().__init__(
            nn.SiLU(), nn.Conv2d(inputs, hidden, 1),
            nn.SiLU(), nn.Conv2d(hidden, hidden, k, 1, k // 2),
            nn.SiLU(), nn.Conv2d(hidden, hidden, k, 1, k // 2),
            nn.SiLU(), nn.Conv2d(hidden, outputs, 1))


class Group(nn.Module):
    """A group of latent maps of a hierarchical VAE."""

    def __init__(self, channels, latents, k):
        super().__init__()
        self.sizes, hidden = [latents, latents, channels], channels // 2
        # Both get inputs that are activated once: the state per group, the features per level.
        activated = lambda *sizes: nn.Sequential(*list(Bottleneck(*sizes))[1:])
        self.prior = activated(channels, hidden, 2 * latents + channels, k)
        self.posterior = activated(2 * channels, hidden, 2 * latents, k)
        self.project = nn.Conv2d(latents, channels, 1)
        self.block = Residual(*Bottleneck(channels, hidden, channels, k))

    def forward(self, x, features):
        """The next state, and the divergence from the prior. The posterior is relative to it."""
        clamp = lambda log_std: 5 * torch.tanh(log_std / 5)
        state = F.silu(x)
        mean, log_std, update = self.prior(state).split(self.sizes, 1)
        shift, log_ratio = self.posterior(torch.cat((state, features), 1)).chunk(2, 1)
        log_ratio = clamp(log_ratio)
        ratio = log_ratio.exp()
        kl = (0.5 * (shift.square() + ratio.square() - 1) - log_ratio).sum()
        noise = torch.addcmul(shift, ratio, torch.randn_like(ratio))
        z = torch.addcmul(mean, clamp(log_std).exp(), noise)
        return self.block(x + update + self.project(z)), kl


def vae_hierarchical(batch=64):
    """Hierarchical VAE 1x28x28: maps of 32x14x14, 64x7x7 and 128x1x1 with 3, 4 and 2 groups of 8
    latent maps; two blocks per size in the encoder, three per group in the decoder, of 1x1, 3x3,
    3x3 (1x1 on the smallest maps) and 1x1 convolutions, each after a SiLU, with half the channels
    inside; between the sizes, convs of stride 2 (4x4), 2 (4x4) and 7 (7x7) and transposed convs of
    stride 7, 2 and 2. Bernoulli likelihood on logits. 1,439,377 parameters; batch 64, Adam 1e-3:
    one step."""
    levels = [(1, 32, 3, 3, (4, 2, 1)), (32, 64, 4, 3, (4, 2, 1)), (64, 128, 2, 1, (7, 7, 0))]
    block = lambda c, k: Residual(*Bottleneck(c, c // 2, c, k))
    down = nn.ModuleList([
        nn.Sequential(nn.Conv2d(inputs, c, *conv), block(c, k), block(c, k))
        for inputs, c, _, k, conv in levels])
    groups = nn.ModuleList([
        nn.ModuleList([Group(c, 8, k) for _ in range(count)]) for _, c, count, k, _ in levels])
    up = nn.ModuleList([
        nn.Sequential(nn.SiLU(), nn.ConvTranspose2d(32, 1, 2, 2)), nn.ConvTranspose2d(64, 32, 2, 2),
        nn.ConvTranspose2d(128, 64, 7, 7)])
    start = nn.ParameterList([torch.zeros(1, 128, 1, 1)])
    optimizer = adam(nn.ModuleList([down, groups, up, start]), 1_439_377)
    x = torch.rand(batch, 1, 28, 28)

    def step():
        y, features = 2 * x - 1, []
        for layers in down:
            y = layers(y)
            features.append(F.silu(y))
        y, kl = start[0].expand(batch, -1, -1, -1), 0
        for level, layers, seen in zip(reversed(groups), reversed(up), reversed(features)):
            for group in level:
                y, nats = group(y, seen)
                kl = kl + nats
            y = layers(y)
        nats = F.binary_cross_entropy_with_logits(y, x, reduction="sum")
        loss = (nats + kl) / batch
        optimizer.zero_grad(); loss.backward(); optimizer.step(); return loss.item()

    return step


def dcgan():
    """DCGAN 28x28, latent 64: G transposed conv 64-128 (7x7), 128-64 (4x4 s2 p1), 64-1 (4x4 s2 p1), BatchNorm+ReLU between, tanh; D conv 1-64 (4x4 s2 p1), 64-128 (4x4 s2 p1, BatchNorm), 128-1 (7x7), LeakyReLU 0.2; non-saturating loss; batch 64; Adam 2e-4, betas (.5,.999): one discriminator step and one generator step, in which the discriminator's weights get no gradients."""
    G = nn.Sequential(nn.ConvTranspose2d(64, 128, 7, 1, 0, bias=False), nn.BatchNorm2d(128), nn.ReLU(), nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.ConvTranspose2d(64, 1, 4, 2, 1), nn.Tanh())
    D = nn.Sequential(nn.Conv2d(1, 64, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(64, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.LeakyReLU(0.2), nn.Conv2d(128, 1, 7, 1, 0))
    og = torch.optim.Adam(G.parameters(), 2e-4, betas=(0.5, 0.999)); od = torch.optim.Adam(D.parameters(), 2e-4, betas=(0.5, 0.999)); x = torch.randn(64, 1, 28, 28)
    bce = F.binary_cross_entropy_with_logits
    def step():
        fake = G(torch.randn(64, 64, 1, 1)); r, f = D(x).flatten(), D(fake.detach()).flatten()
        ld = bce(r, torch.ones_like(r)) + bce(f, torch.zeros_like(f)); od.zero_grad(); ld.backward(); od.step()
        D.requires_grad_(False); g = D(fake).flatten(); lg = bce(g, torch.ones_like(g)); og.zero_grad(); lg.backward(); og.step(); D.requires_grad_(True); return ld.item() + lg.item()
    return step


def unet():
    from diffusers import UNet2DModel
    return UNet2DModel(sample_size=28, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(32, 64, 64), norm_num_groups=8, attention_head_dim=8,
                       down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"))


def ddpm_unet_train():
    """diffusers' UNet2DModel (1 channel 28x28, blocks 32-64-64, one layer each, attention at 7x7, 8 groups), batch 32, noise-prediction MSE, Adam 1e-3: one step."""
    u = unet(); o = torch.optim.Adam(u.parameters(), 1e-3); x, n = torch.randn(2, 32, 1, 28, 28); t = torch.randint(0, 1000, (32,))
    def step():
        l = F.mse_loss(u(x, t).sample, n); o.zero_grad(); l.backward(); o.step(); return l.item()
    return step


def ddpm_unet_sample():
    """The same UNet: 10 DDIM steps for 16 images."""
    from diffusers import DDIMScheduler
    u = unet().eval(); s = DDIMScheduler(); s.set_timesteps(10)
    def step():
        x = torch.randn(16, 1, 28, 28)
        with torch.inference_mode():
            for t in s.timesteps: x = s.step(u(x, t).sample, t, x).prev_sample
        return x.mean().item()
    return step


def sd15_unet_step():
    """Stable Diffusion 1.5's U-net of random weights: one guided step for an image of 512x512, the network on two latents of 4x64x64 with 77 tokens each."""
    from diffusers import UNet2DConditionModel
    u = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8).eval()
    x, states = torch.randn(1, 4, 64, 64), torch.randn(2, 77, 768)
    def step():
        with torch.inference_mode():
            none, text = u(torch.cat([x, x]), 500, encoder_hidden_states=states).sample.chunk(2)
            return (none + 7.5 * (text - none)).mean().item()
    return step


def sd15_vae_decode():
    """Stable Diffusion 1.5's autoencoder of random weights: a latent of 4x64x64 to an image of 512x512."""
    from diffusers import AutoencoderKL
    vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, sample_size=512).eval()
    z = torch.randn(1, 4, 64, 64)
    def step():
        with torch.inference_mode(): return vae.decode(z).sample.mean().item()
    return step


def clip_text():
    """The text encoder of Stable Diffusion 1.5 (CLIP ViT-L/14) of random weights: a prompt of 77 tokens."""
    from transformers import CLIPTextConfig, CLIPTextModel
    model = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)).eval()
    ids = torch.arange(77)[None]
    def step():
        with torch.inference_mode(): return model(ids).last_hidden_state.mean().item()
    return step


def sd15_request():
    """A request of 512x512 with 2 steps, from the pipeline of random weights in the directory AIGC_SD15 (peer/sd15_folder.py writes it)."""
    import os
    from diffusers import StableDiffusionPipeline
    pipe = StableDiffusionPipeline.from_pretrained(os.environ["AIGC_SD15"])
    pipe.set_progress_bar_config(disable=True)
    return lambda: pipe("A cat wearing a hat", num_inference_steps=2, generator=torch.Generator().manual_seed(0))


def gpt_char_train():
    """nanoGPT's CPU recipe: 4 layers, 4 heads, width 128, context 64, vocabulary 65, batch 12, no dropout, no biases, tied output; AdamW 1e-3: one step."""
    class Block(nn.Module):
        def __init__(s, d=128, h=4):
            super().__init__(); s.h = h; s.n1, s.n2 = nn.LayerNorm(d, bias=False), nn.LayerNorm(d, bias=False)
            s.qkv, s.o, s.f, s.g = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False), nn.Linear(d, 4 * d, bias=False), nn.Linear(4 * d, d, bias=False)
        def forward(s, x):
            B, T, C = x.shape; q, k, v = (a.view(B, T, s.h, C // s.h).transpose(1, 2) for a in s.qkv(s.n1(x)).split(C, 2))
            x = x + s.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, C)); return x + s.g(F.gelu(s.f(s.n2(x))))
    e, p, bs, n = nn.Embedding(65, 128), nn.Embedding(64, 128), nn.ModuleList([Block() for _ in range(4)]), nn.LayerNorm(128, bias=False)
    o = torch.optim.AdamW([q for m in (e, p, bs, n) for q in m.parameters()], 1e-3); i, y = torch.randint(0, 65, (2, 12, 64))
    def step():
        x = e(i) + p(torch.arange(64))
        for b in bs: x = b(x)
        l = F.cross_entropy((n(x) @ e.weight.T).view(-1, 65), y.reshape(-1)); o.zero_grad(); l.backward(); o.step(); return l.item()
    return step


def gpt2(prompt=32, **options):
    from transformers import GPT2Config, GPT2LMHeadModel
    model, ids = GPT2LMHeadModel(GPT2Config()).eval(), torch.randint(0, 50257, (1, prompt))
    def step():
        with torch.inference_mode(): return model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=50256, **options)
    return step


def gpt2_greedy():
    """GPT-2 of 124M random weights: 64 new tokens after a prompt of 32, greedy."""
    return gpt2(max_new_tokens=64, min_new_tokens=64)


def gpt2_beam5():
    """GPT-2 of 124M random weights: 32 new tokens after a prompt of 32, five beams, no repeated bigrams."""
    return gpt2(max_new_tokens=32, min_new_tokens=32, num_beams=5, no_repeat_ngram_size=2)


def gpt2_prefill():
    """GPT-2 of 124M random weights: 1 new token after a prompt of 512."""
    return gpt2(512, max_new_tokens=1)


def inception_statistics():
    """Mean and covariance of the features of 64 images of 32x32, by torch-fidelity's InceptionV3 of random weights."""
    import numpy as np, torch_fidelity.feature_extractor_inceptionv3 as inception
    inception.load_state_dict_from_url = lambda *args, **options: None
    load, inception.FeatureExtractorInceptionV3.load_state_dict = inception.FeatureExtractorInceptionV3.load_state_dict, lambda *args: None
    model = inception.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    inception.FeatureExtractorInceptionV3.load_state_dict = load
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    def step():
        with torch.no_grad(): f = model(images)[0].double().cpu().numpy()
        return f.mean(0), np.cov(f, rowvar=False)
    return step


def prdc():
    """Precision, recall, density and coverage (package prdc) of 10,000 samples of 2,048 features against 10,000 others."""
    import contextlib, io, numpy as np
    from prdc import compute_prdc
    real, fake = (np.random.default_rng(k).standard_normal((10000, 2048), dtype=np.float32) for k in (0, 1))
    def step():
        with contextlib.redirect_stdout(io.StringIO()): return compute_prdc(real, fake, nearest_k=5)
    return step


def conv(grads, batch, channels_in, channels_out, side, kernel, stride):
    """A convolution with padding 1 (1x1 kernels: none) and no bias: forward, or forward and the gradients in `grads`."""
    x, w = torch.randn(batch, channels_in, side, side), torch.randn(channels_out, channels_in, kernel, kernel)
    wanted = tuple(t.requires_grad_() for t, on in ((x, "x" in grads), (w, "w" in grads)) if on)
    f = lambda: F.conv2d(x, w, None, stride, int(kernel > 1)); g = torch.randn_like(f())
    return (lambda: torch.autograd.grad(f(), wanted, g)) if wanted else f


def norm(act, grads):
    """GroupNorm (8 groups) and / or SiLU of 32x64x28x28: forward, or forward and all gradients."""
    x, g = torch.randn(2, 32, 64, 28, 28); gamma, beta = torch.randn(2, 64)
    f = {"norm": lambda: F.group_norm(x, 8, gamma, beta), "silu": lambda: F.silu(x), "both": lambda: F.silu(F.group_norm(x, 8, gamma, beta))}[act]
    if not grads: return f
    wanted = [t.requires_grad_() for t in (x, gamma, beta)]; return lambda: torch.autograd.grad(f(), wanted, g)


def product(rows, k, columns):
    """A matrix product: with 1024x1024 matrices the peak arithmetic throughput, with a row by 768x50257 that of memory (154 MB)."""
    a, b = torch.randn(rows, k), torch.randn(k, columns); return lambda: a @ b


ALL = dict(
    matmul=lambda: product(1024, 1024, 1024), matvec=lambda: product(1, 768, 50257),
    vae_mlp=vae_mlp, vae_conv=vae_conv, vae_residual_vq=vae_residual_vq,
    vae_hierarchical=vae_hierarchical,
    dcgan=dcgan, ddpm_unet_train=ddpm_unet_train, ddpm_unet_sample=ddpm_unet_sample,
    sd15_unet_step=sd15_unet_step, sd15_vae_decode=sd15_vae_decode, clip_text=clip_text,
    sd15_request=sd15_request, sd15_request_half=sd15_request, sd15_request_half_low=sd15_request, sd15_request_low=sd15_request, gpt_char_train=gpt_char_train,
    gpt2_greedy=gpt2_greedy, gpt2_greedy_int8=gpt2_greedy, gpt2_greedy_int4=gpt2_greedy,
    gpt2_beam5=gpt2_beam5, gpt2_prefill=gpt2_prefill,
    inception_statistics=inception_statistics, prdc=prdc,
    **sound.WORKLOADS, **video.WORKLOADS,
    conv1_64=lambda: conv("", 32, 64, 64, 28, 1, 1), conv1_64_xw=lambda: conv("xw", 32, 64, 64, 28, 1, 1),
    conv3_64=lambda: conv("", 32, 64, 64, 28, 3, 1), conv3_64_w=lambda: conv("w", 32, 64, 64, 28, 3, 1), conv3_64_xw=lambda: conv("xw", 32, 64, 64, 28, 3, 1),
    conv3_32=lambda: conv("", 32, 32, 32, 28, 3, 1), conv3_32_xw=lambda: conv("xw", 32, 32, 32, 28, 3, 1),
    conv4_64=lambda: conv("", 64, 64, 128, 14, 4, 2), conv4_64_xw=lambda: conv("xw", 64, 64, 128, 14, 4, 2),
    group_norm=lambda: norm("norm", False), silu=lambda: norm("silu", False), group_norm_silu_xw=lambda: norm("both", True),
)
# Cost against size: vae_conv with the batch, the width or the side doubled and quadrupled.
for key in ("batch", "width", "side"):
    for times in (1, 2, 4):
        base = dict(batch=32, width=16, side=16)
        base[key] *= times
        ALL[f"vae_conv_{key}_{base[key]}"] = lambda base=base: vae_conv(**base)

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    idle = peak(); step = ALL[A.workload]()
    for _ in range(3): step()
    for line in sys.stdin:
        times, end = [], time.perf_counter() + float(line)
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter(); step(); SYNC(); times.append(time.perf_counter() - start)
        print(json.dumps(dict(seconds=times, peak_bytes=peak(), idle_bytes=idle)), flush=True)
