"""HiFi-GAN with a harmonic source for `sound_peers.py`: pitch, harmonics of it, and the filter."""
import math
import torch, torch.nn as nn, torch.nn.functional as F
from torch.nn.utils import parametrize
from sound_peer_clips import RATE


def scaled(model):
    """Initial weights that keep the mean square of what a layer is given, and biases of 0."""
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            terms = module.in_channels * module.kernel_size[0]
            if isinstance(module, nn.ConvTranspose1d):
                terms /= module.stride[0]
            weight = torch.randn_like(module.weight) / math.sqrt(terms)
            # A normalised weight is set through its gain and its direction.
            normalized = parametrize.is_parametrized(module)
            module.weight = weight if normalized else nn.Parameter(weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


@torch.no_grad()
def pitch_of(waves, hop, low=65.0, high=400.0, window=256, threshold=0.25, silence=1e-4):
    """Hertz of every frame, 0 without a pitch: YIN, a frame around the middle of each hop."""
    first, last = int(RATE / high), math.ceil(RATE / low)
    size = window + last + 1
    frames = waves.shape[1] // hop
    padded = F.pad(waves, (size // 2 - hop // 2, size))
    x = padded.unfold(1, size, hop)[:, :frames]
    here = x[..., :window]
    found = torch.stack([(here - x[..., lag:lag + window]).square().sum(-1)
                         for lag in range(1, last + 2)], -1)
    lags = torch.arange(1, last + 2)
    found = found * lags / found.cumsum(-1).clamp_min(1e-12)
    candidates = found[..., first - 1:last] < threshold
    index = candidates.float().argmax(-1) + first - 1
    while True:
        after = found.gather(-1, (index + 1).clamp_max(last)[..., None])[..., 0]
        now = found.gather(-1, index[..., None])[..., 0]
        step = (after < now) & (index < last - 1)
        if not step.any():
            break
        index = index + step
    at = [found.gather(-1, (index + k).clamp(0, last)[..., None])[..., 0] for k in (-1, 0, 1)]
    curve = at[0] - 2 * at[1] + at[2]
    shift = torch.where(curve > 0, 0.5 * (at[0] - at[2]) / curve.clamp_min(1e-12), 0.0)
    hertz = RATE / (index + 1 + shift.clamp(-0.5, 0.5))
    middle = x[..., (size - window) // 2:][..., :window]
    loud = middle.square().mean(-1) >= silence
    return torch.where(candidates.any(-1) & loud, hertz, 0.0)


def source(pitch, hop, harmonics=16):
    """Sine waves at multiples of the pitch, and noise, `[batch, harmonics + 1, frames * hop]`."""
    frames, held = pitch.shape[1], pitch.repeat_interleave(hop, 1)
    at = (torch.arange(frames * hop) + 0.5) / hop - 0.5
    low = at.floor().long()
    a, b = pitch[:, low.clamp_min(0)], pitch[:, (low + 1).clamp_max(frames - 1)]
    hertz = torch.where((a > 0) & (b > 0), a + (at - low) * (b - a), held)
    cycles = (hertz.double() / RATE).cumsum(1) + torch.rand(len(pitch), 1)
    multiples = torch.arange(1, harmonics + 1)[None, :, None]
    sines = torch.sin(2 * math.pi * (cycles[:, None] * multiples)).float()
    heard = (hertz[:, None] * multiples <= RATE / 2) & (hertz[:, None] > 0)
    return torch.cat([sines * heard, torch.randn_like(hertz)[:, None]], 1)


class Block(nn.Module):
    def __init__(self, width, kernel):
        super().__init__()
        conv = lambda step: nn.Conv1d(
            width, width, kernel, dilation=step, padding=(kernel - 1) // 2 * step)
        self.first = nn.ModuleList(conv(step) for step in (1, 3))
        self.second = nn.ModuleList(conv(1) for _ in (1, 3))

    def forward(self, x):
        for first, second in zip(self.first, self.second):
            x = x + second(F.leaky_relu(first(F.leaky_relu(x, 0.1)), 0.1))
        return x


class Generator(nn.Module):
    def __init__(self, mean, deviation, width=64, rates=(4, 4, 4), harmonics=16, low=65, high=400):
        super().__init__()
        bands, self.rates, self.hop = len(mean), rates, math.prod(rates)
        self.range = (math.log(low), math.log(high))
        self.register_buffer("mean", mean[:, None])
        self.register_buffer("deviation", deviation[:, None])
        self.pitch = nn.ModuleList(nn.Conv1d(i, 64, 5, padding=2) for i in (bands, 64, 64))
        self.voice = nn.Conv1d(64, 2, 1)
        self.start = nn.Conv1d(bands, width, 7, padding=3)
        self.up, self.source, self.blocks, hop = (
            nn.ModuleList(), nn.ModuleList(), nn.ModuleList(), self.hop)
        for rate in rates:
            hop //= rate
            self.up.append(nn.Conv1d(width, width // 2, 2 * rate + 1, padding=rate))
            width //= 2
            self.source.append(nn.Conv1d(
                harmonics + 1, width, hop + hop // 2 * 2, hop, padding=hop // 2))
            self.blocks.append(nn.ModuleList(Block(width, kernel) for kernel in (3, 7)))
        self.end = nn.Conv1d(width, 1, 7, padding=3)
        scaled(self)

    def predicted(self, mel):
        x = (mel - self.mean) / self.deviation
        for conv in self.pitch:
            x = F.leaky_relu(conv(x), 0.1)
        low, high = self.range
        x = self.voice(x)
        return torch.sigmoid(x[:, 0]) * (high - low) + low, x[:, 1]

    def pitch_loss(self, mel, pitch):
        found, voicing = self.predicted(mel)
        voiced = (pitch > 0).float()
        off = (found - pitch.clamp_min(1).log()).abs() * voiced
        return F.binary_cross_entropy_with_logits(voicing, voiced) \
            + 4 * off.sum() / voiced.sum().clamp_min(1)

    def forward(self, mel, pitch=None):
        if pitch is None:
            found, voicing = self.predicted(mel)
            pitch = found.exp() * (voicing > 0)
        waves = source(pitch, self.hop)
        x = self.start((mel - self.mean) / self.deviation)
        for rate, up, of_source, blocks in zip(self.rates, self.up, self.source, self.blocks):
            x = F.interpolate(F.leaky_relu(x, 0.1), scale_factor=rate, mode="linear")
            x = up(x) + of_source(waves)
            x = sum(block(x) for block in blocks) / len(blocks)
        return torch.tanh(self.end(F.leaky_relu(x)))[:, 0]
