"""What the networks of `sound_peers.py` need beside those of transformers and diffusers: the
quantiser of the codec, the discriminators of the vocoder."""
import torch, torch.nn as nn, torch.nn.functional as F
from torch.nn.utils.parametrizations import weight_norm
from sound_peer_clips import RESOLUTIONS


class Quantizer(nn.Module):
    """Stages of 256 codes, each for what those before it leave. Codes are means of their vectors
    in a moving average; the first ones are found by k-means, dead ones are replaced."""

    def __init__(self, stages=4, rows=256, dim=64, decay=0.9, dead=0.03):
        super().__init__()
        self.decay, self.dead, self.started = decay, dead, False
        self.codes, self.uses = torch.zeros(stages, rows, dim), torch.ones(stages, rows)
        self.sums = self.codes.clone()

    def nearest(self, x, stage):
        return torch.cdist(x, self.codes[stage]).argmin(1)

    @torch.no_grad()
    def start(self, x):
        rows = self.codes.shape[1]
        for stage in range(len(self.codes)):
            self.codes[stage] = x[torch.randint(len(x), (rows,))]
            for _ in range(10):
                index = self.nearest(x, stage)
                used = torch.bincount(index, minlength=rows).float()
                total = torch.zeros_like(self.codes[stage]).index_add_(0, index, x)
                means = total / used.clamp_min(1)[:, None]
                self.codes[stage] = torch.where(used[:, None] > 0, means, self.codes[stage])
            self.uses[stage], self.sums[stage] = used, self.codes[stage] * used[:, None]
            x = x - self.codes[stage][self.nearest(x, stage)]
        self.started = True

    def forward(self, z):
        """`[batch, dim, frames]`: the sum of codes, the squared distances left, the codes."""
        rows = z.transpose(1, 2).reshape(-1, z.shape[1])
        if self.training and not self.started:
            self.start(rows.detach())
        rest, left, indices, self.inputs = rows, 0, [], []
        for stage in range(len(self.codes)):
            self.inputs.append(rest.detach())
            indices.append(self.nearest(rest.detach(), stage))
            value = self.codes[stage][indices[-1]]
            left = left + F.mse_loss(rest, value, reduction="sum")
            rest = rest - value
        self.indices = indices
        total = (rows - rest.detach()).view(z.shape[0], z.shape[2], -1).transpose(1, 2)
        return total, left / z.numel(), torch.stack(indices)

    @torch.no_grad()
    def follow(self):
        count = self.codes.shape[1]
        for stage, (x, index) in enumerate(zip(self.inputs, self.indices)):
            used = torch.bincount(index, minlength=count).float()
            total = torch.zeros_like(self.sums[stage]).index_add_(0, index, x)
            self.uses[stage].lerp_(used, 1 - self.decay)
            self.sums[stage].lerp_(total, 1 - self.decay)
            whole = self.uses[stage].sum()
            smooth = (self.uses[stage] + 1e-5) * whole / (whole + count * 1e-5)
            self.codes[stage] = self.sums[stage] / smooth[:, None]
            mean, drawn = whole / count, x[torch.randint(len(x), (count,))]
            dead = self.uses[stage] < self.dead * mean
            self.codes[stage][dead], self.sums[stage][dead] = drawn[dead], drawn[dead] * mean
            self.uses[stage][dead] = mean


class Periods(nn.Module):
    """Every p-th sample alone."""

    def __init__(self, period, channels=(8, 16, 32, 32), slope=0.1):
        super().__init__()
        self.period, self.slope, inputs, convs = period, slope, 1, []
        for index, width in enumerate(channels):
            stride = 1 if index == len(channels) - 1 else 3
            convs.append(weight_norm(nn.Conv1d(inputs, width, 5, stride, 2)))
            inputs = width
        self.convs = nn.ModuleList(convs)
        self.last = weight_norm(nn.Conv1d(inputs, 1, 3, 1, 1))

    def forward(self, x):
        rest = -x.shape[1] % self.period
        x = F.pad(x[:, None], (0, rest), "reflect")[:, 0] if rest else x
        x = x.view(len(x), -1, self.period).transpose(1, 2).reshape(len(x) * self.period, 1, -1)
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), self.slope)
            features.append(x)
        return self.last(x), features


class Resolution(nn.Module):
    """Magnitudes of spectra."""

    def __init__(self, size, channels=4, slope=0.2):
        super().__init__()
        self.size, self.slope, inputs, convs = size, slope, 1, []
        for kernel, stride in [((3, 9), 1), ((3, 9), 2), ((3, 9), 2), ((3, 9), 2), ((3, 3), 1)]:
            padding = (kernel[0] // 2, kernel[1] // 2)
            convs.append(weight_norm(nn.Conv2d(inputs, channels, kernel, (1, stride), padding)))
            inputs = channels
        self.convs = nn.ModuleList(convs)
        self.last = weight_norm(nn.Conv2d(channels, 1, 3, 1, 1))

    def forward(self, x):
        n_fft, hop, window = self.size
        pad = (n_fft - hop) // 2
        x = F.pad(x[:, None], (pad, pad), "reflect")[:, 0]
        x = torch.stft(x, n_fft, hop, window, torch.hann_window(window), center=False,
                       return_complex=True)
        x = torch.view_as_real(x).square().sum(-1).clamp_min(1e-12).sqrt()[:, None]
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), self.slope)
            features.append(x)
        return self.last(x), features
