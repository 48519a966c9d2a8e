"""Clips of FSDD, their spectra and what is measured of them, for `sound_peers.py`."""
import glob, json, math, os, wave
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F

RATE = 8000


def names(folder, test):
    """Path, digit and speaker of every file of a split, in the order of the names."""
    found = []
    for path in sorted(glob.glob(os.path.join(folder, "**", "*.wav"), recursive=True)):
        digit, speaker, index = os.path.basename(path)[:-4].split("_")
        if (int(index) < 5) == test:
            found.append((path, int(digit), speaker))
    return found


def recordings(folder, test):
    """Samples, scaled to a peak of 0.95, and digits of a split, in the order of the names."""
    found = []
    for path, digit, _speaker in names(folder, test):
        with wave.open(path) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
        samples = samples / np.abs(samples).max() * 0.95
        found.append((torch.tensor(samples, dtype=torch.float32), digit))
    return found


def fitted(x, length, crop=False):
    """Cut at a random place, or in the middle, or padded with silence."""
    extra = len(x) - length
    if extra <= 0:
        return F.pad(x, (0, -extra))
    start = int(torch.randint(extra + 1, ())) if crop else extra // 2
    return x[start:start + length]


class LogMel:
    """HiFi-GAN's: logarithms of magnitudes in filters of Slaney's scale, at least 1e-5."""

    def __init__(self, n_fft, hop, mels, window=None):
        from transformers.audio_utils import mel_filter_bank
        bins, half = n_fft // 2 + 1, RATE / 2
        bank = mel_filter_bank(bins, mels, 0.0, half, RATE, norm="slaney", mel_scale="slaney")
        self.bank = torch.tensor(bank.T, dtype=torch.float32)
        self.n_fft, self.hop, self.window = n_fft, hop, torch.hann_window(window or n_fft)

    def __call__(self, x):
        pad = (self.n_fft - self.hop) // 2
        x = F.pad(x[:, None], (pad, pad), "reflect")[:, 0]
        z = torch.stft(x, self.n_fft, self.hop, len(self.window), self.window, center=False,
                       return_complex=True)
        power = torch.view_as_real(z).square().sum(-1)
        return (self.bank @ (power + 1e-9).sqrt()).clamp_min(1e-5).log()

    def magnitudes(self, log_mel, rounds=200):
        """Magnitudes with nearly these mels, by multiplicative updates."""
        mel, bank = log_mel.exp(), self.bank
        found = (torch.linalg.pinv(bank) @ mel).clamp_min(1e-6)
        for _ in range(rounds):
            found = found * (bank.T @ mel) / (bank.T @ (bank @ found)).clamp_min(1e-9)
        return found

    def griffin_lim(self, log_mel):
        """Waveforms `[batch, time]`."""
        return self.angled(self.magnitudes(log_mel), log_mel.shape[2] * self.hop)

    def angled(self, size, length, rounds=60, momentum=0.99):
        """Waveforms `[batch, length]` with nearly these magnitudes."""
        at = dict(n_fft=self.n_fft, hop_length=self.hop, win_length=len(self.window),
                  window=self.window)
        size = F.pad(size, (0, 1), "replicate")
        angles, before = torch.exp(2j * math.pi * torch.rand(size.shape)), 0
        for _ in range(rounds):
            x = torch.istft(size * angles, length=length, **at)
            z = torch.stft(x, return_complex=True, **at)
            turned = z - before * (momentum / (1 + momentum))
            before, angles = z, turned / (turned.abs() + 1e-9)
        # Frames are centred half a hop after those of torch.
        x = torch.istft(size * angles, length=length, **at)
        return F.pad(x, (self.hop // 2, 0))[:, :length]


RESOLUTIONS = [(128, 20, 80), (256, 50, 200), (512, 100, 400)]


def stft_distance(x, y):
    """Spectral convergence and difference of log-magnitudes, averaged over resolutions."""
    total = 0
    for n_fft, hop, window in RESOLUTIONS:
        a, b = (torch.view_as_real(torch.stft(
            v, n_fft, hop, window, torch.hann_window(window), return_complex=True
        )).square().sum(-1).clamp_min(1e-7).sqrt() for v in (x, y))
        total = total + (b - a).norm() / b.norm() + F.l1_loss(a.log(), b.log())
    return total / len(RESOLUTIONS)


class Classifier(nn.Module):
    """The network of `aigc_core::eval::sound_classifier`, with the weights of a directory."""

    def __init__(self, folder):
        super().__init__()
        from safetensors.torch import load_file
        with open(os.path.join(folder, "config.json")) as file:
            config = json.load(file)
        widths, hidden, mel = config["channels"], config["hidden"], config["mel"]
        pairs = list(zip([1] + widths, widths))
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairs)
        self.norms = nn.ModuleList(nn.GroupNorm(8, o) for o in widths)
        self.hidden = nn.Linear(widths[-1] * (mel["n_mels"] // 8), hidden)
        self.head = nn.Linear(hidden, config["num_classes"])
        self.mel = LogMel(mel["n_fft"], mel["hop_length"], mel["n_mels"], mel["win_length"])
        self.length = config["length"]
        self.load_state_dict(load_file(os.path.join(folder, "model.safetensors")))
        self.eval()

    @torch.no_grad()
    def forward(self, waves):
        """The class read in each of some waveforms."""
        read = []
        for wave in waves:
            x = (self.mel(F.pad(wave, (0, max(0, self.length - len(wave))))[None, :self.length])
                 + 7) / 2
            x = x[:, None]
            for index, (conv, norm) in enumerate(zip(self.convolutions, self.norms)):
                x = F.relu(norm(conv(x)))
                if index < 3:
                    x = F.max_pool2d(x, 2)
            x = F.relu(self.hidden(x.mean(3).flatten(1)))
            read.append(int(self.head(x).argmax()))
        return read


def share(found, expected):
    return sum(a == b for a, b in zip(found, expected)) / len(expected)


def distances(found, originals):
    """Means of two distances over pairs of waveforms, each pair cut to one length."""
    mel = LogMel(256, 64, 40)
    pairs = [(a[None, :len(b)], b[None, :len(a)]) for a, b in zip(found, originals)]
    with torch.no_grad():
        return dict(
            mel=float(np.mean([F.l1_loss(mel(a), mel(b)).item() for a, b in pairs])),
            stft=float(np.mean([stft_distance(a, b).item() for a, b in pairs])))


def kept(folder, found, originals):
    """The share of sounds that are read as their originals are; nothing without a classifier."""
    if not folder:
        return {}
    classifier = Classifier(folder)
    return dict(kept=share(classifier(found), classifier(originals)))
