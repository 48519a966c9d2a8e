"""The vocoder of predicted magnitudes in PyTorch, for `sound_peers.py`."""
import math
import torch, torch.nn as nn, torch.nn.functional as F

from sound_peer_clips import LogMel, fitted, recordings
from sound_peer_train import order, train

LEAST = math.sqrt(1e-7)


class Block(nn.Module):
    """ConvNeXt over time."""

    def __init__(self, dim, inner):
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 0.3))

    def forward(self, x):
        y = self.norm(self.dwconv(x).transpose(1, 2))
        return x + (self.pwconv2(F.gelu(self.pwconv1(y))) * self.gamma).transpose(1, 2)


class Magnitudes(nn.Module):
    """Logarithms of magnitudes from log-mels."""

    def __init__(self, mel, mean, deviation, dim=192, inner=576, layers=5):
        super().__init__()
        mels, bins = mel.bank.shape
        spread = mel.bank * mel.bank.sum(1, keepdim=True)
        self.register_buffer("smooth", (mel.bank / spread.sum(0).clamp_min(1e-12)).T)
        self.register_buffer("mean", mean[:, None])
        self.register_buffer("deviation", deviation[:, None])
        self.conv_pre = nn.Conv1d(mels, dim, 7, padding=3)
        self.blocks = nn.ModuleList(Block(dim, inner) for _ in range(layers))
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.conv_post = nn.Conv1d(dim, bins, 1)
        nn.init.zeros_(self.conv_post.weight)
        nn.init.zeros_(self.conv_post.bias)

    def forward(self, log_mel):
        x = self.conv_pre((log_mel - self.mean) / self.deviation)
        for block in self.blocks:
            x = block(x)
        x = self.conv_post(self.norm(x.transpose(1, 2)).transpose(1, 2))
        return x + (self.smooth @ log_mel.exp()).clamp_min(LEAST).log()


def targets(mel, waves):
    """The magnitudes that the mels are of."""
    pad = (mel.n_fft - mel.hop) // 2
    waves = F.pad(waves[:, None], (pad, pad), "reflect")[:, 0]
    z = torch.stft(waves, mel.n_fft, mel.hop, len(mel.window), mel.window, center=False,
                   return_complex=True)
    return torch.view_as_real(z).square().sum(-1).clamp_min(LEAST ** 2).sqrt()


def magnitude(data, steps):
    """Milliseconds of a step, and what makes waveforms of log-mels."""
    clips, mel = recordings(data, False), LogMel(256, 64, 40)
    all_mels = torch.cat([mel(x[None])[0] for x, _ in clips], 1)
    network = Magnitudes(mel, all_mels.mean(1), all_mels.std(1, correction=0))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.99),
                                  weight_decay=0.01)
    batches = order(len(clips), 16)

    def step(_):
        x = torch.stack([fitted(clips[i][0], 4000, True) for i in next(batches)])
        log, target = network(mel(x)), targets(mel, x)
        found = log.clamp_max(math.log(mel.n_fft)).exp()
        loss = F.l1_loss(log.clamp_min(math.log(LEAST)), target.log())
        loss = loss + (found - target).norm() / target.norm()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    ms = train(step, steps, [optimizer], 200)
    network.eval()

    def waves(log_mel):
        size = network(log_mel).clamp_max(math.log(mel.n_fft)).exp()
        return mel.angled(size, log_mel.shape[2] * mel.hop, 100)

    return ms, waves
