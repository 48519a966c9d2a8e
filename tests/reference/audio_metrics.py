"""Measures of sound by torch, torchmetrics and transformers, for `tests/eval_audio.rs`.

    pip install torch numpy safetensors torchmetrics transformers
    python audio_metrics.py ../fixtures/eval/audio

Writes two clips of two channels, their estimates, and the expected numbers.
"""
import json, os, sys
import numpy as np, torch
from safetensors.torch import save_file
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio, scale_invariant_signal_noise_ratio, signal_noise_ratio
from transformers.audio_utils import mel_filter_bank

RATE, N_FFT, WIN, HOP, MELS, LOW, HIGH = 8000, 256, 200, 64, 20, 60.0, 3800.0
RESOLUTIONS = [(256, 150, 32), (512, 300, 64), (128, 60, 16)]
FLOOR = 1e-7


def stft(x, n_fft, win, hop):
    """Power of every clip and channel, [..., frames, bins]."""
    s = torch.stft(x.flatten(0, -2), n_fft, hop, win, torch.hann_window(win, dtype=x.dtype), center=True, return_complex=True)
    return s.abs().pow(2).transpose(-1, -2).unflatten(0, x.shape[:-1])


def filters(scale, norm):
    return torch.tensor(mel_filter_bank(N_FFT // 2 + 1, MELS, LOW, HIGH, RATE, norm=norm, mel_scale=scale))  # [bins, mels]


def distances(y, t):
    out = dict(convergence=[], magnitude=[], log_spectral=[])
    for r in RESOLUTIONS:
        a, b = (stft(v, *r).clamp(min=FLOOR).sqrt() for v in (y, t)); every = tuple(range(1, a.dim()))
        out["convergence"].append((torch.linalg.vector_norm(b - a, dim=every) / torch.linalg.vector_norm(b, dim=every)).tolist())
        out["magnitude"].append((b.log() - a.log()).abs().mean(every).tolist())
        out["log_spectral"].append((20 * (b / a).log10()).square().mean(-1).sqrt().mean((1, 2)).tolist())
    return out


if __name__ == "__main__":
    rng = np.random.default_rng(0); time = np.arange(2400) / RATE
    tone = lambda f, a: a * np.sin(2 * np.pi * f * time * (1 + time)) * np.exp(-2 * time)
    target = np.stack([[tone(220, 0.5) + tone(900, 0.2), tone(330, 0.3)], [tone(600, 0.6), tone(150, 0.4) + 0.05 * rng.normal(size=2400)]])
    estimate = 0.8 * target + 0.05 * rng.normal(size=target.shape) + 0.02
    target, estimate = (torch.tensor(x.astype(np.float32)) for x in (target, estimate))
    y, t = estimate.double(), target.double()
    mean = lambda x: x.double().mean(1).tolist()
    expected = distances(y, t)
    expected |= dict(snr=mean(signal_noise_ratio(estimate, target)), si_sdr=mean(scale_invariant_signal_distortion_ratio(estimate, target)), si_snr=mean(scale_invariant_signal_noise_ratio(estimate, target)))
    power = stft(t.mean(1).float().double(), N_FFT, WIN, HOP)  # mono in single precision, [clip, frames, bins]
    log_mel = {f"log_mel.{p}": (power ** (p / 2) @ filters("slaney", "slaney")).clamp(min=1e-6).log() for p in (1, 2)}
    x = log_mel["log_mel.2"]; log_mel["statistics"] = torch.cat([x.mean(1), x.std(1, unbiased=False)], 1)
    tensors = dict(target=target, estimate=estimate, **log_mel, power=power[0, :4])
    for scale in ("htk", "slaney"):
        for norm in (None, "slaney"): tensors[f"filters.{scale}.{norm or 'none'}"] = filters(scale, norm).T
    about = dict(sample_rate=RATE, n_fft=N_FFT, win_length=WIN, hop_length=HOP, n_mels=MELS, f_min=LOW, f_max=HIGH, resolutions=RESOLUTIONS, expected=expected)
    os.makedirs(sys.argv[1], exist_ok=True)
    save_file({k: v.float().contiguous() for k, v in tensors.items()}, f"{sys.argv[1]}/metrics.safetensors", metadata={"json": json.dumps(about)})
    print(json.dumps(expected, indent=1))
