"""The workloads of sound, in PyTorch and transformers. `peer.py` runs them."""
import torch, torch.nn as nn, torch.nn.functional as F
from quantizer import ResidualQuantizer


def parameters(modules, expected):
    """All parameters, after a check of their number, which our side does too."""
    found = [p for m in modules for p in m.parameters()]
    count = sum(p.numel() for p in found)
    assert count == expected, f"{count} parameters, expected {expected}"
    return found


class ConvPairs(nn.Module):
    """HiFi-GAN's residual block: pairs of convolutions after leaky ReLUs, the first of each dilated, each pair with a shortcut."""

    def __init__(self, channels, kernel, dilations=(1, 3, 5)):
        super().__init__()
        conv = lambda dilation: nn.Conv1d(channels, channels, kernel, 1, (kernel - 1) // 2 * dilation, dilation)
        self.pairs = nn.ModuleList([nn.ModuleList([conv(d), conv(1)]) for d in dilations])

    def forward(self, x):
        for first, second in self.pairs:
            x = second(F.leaky_relu(first(F.leaky_relu(x, 0.1)), 0.1)) + x
        return x


def conv1d_stack():
    """A stage of HiFi-GAN on 8 signals of 128 channels and 4,000 samples: the mean of three residual blocks with kernels of 3, 7 and 11, dilations of 1, 3 and 5, leaky ReLU of slope 0.1. Forward, and the gradients of the mean square with respect to signals and weights. 2,066,688 parameters."""
    blocks = nn.ModuleList([ConvPairs(128, kernel) for kernel in (3, 7, 11)])
    x = torch.randn(8, 128, 4000, requires_grad=True)
    wanted = [x, *parameters([blocks], 2_066_688)]
    def step():
        loss = (sum(block(x) for block in blocks) / 3).square().mean()
        torch.autograd.grad(loss, wanted); return loss.item()
    return step


def stft_loss():
    """The distance of Parallel WaveGAN on 16 signals of 8,000 samples: spectral convergence and mean difference of log-magnitudes over the whole batch, for transforms of 1,024, 2,048 and 512 (windows 600, 1,200, 240, hops 120, 240, 50), squared magnitudes at least 1e-7. Forward, and the gradient with respect to the estimates."""
    sizes = [(1024, 120, torch.hann_window(600)), (2048, 240, torch.hann_window(1200)), (512, 50, torch.hann_window(240))]
    estimates, targets = torch.randn(16, 8000, requires_grad=True), torch.randn(16, 8000)
    def magnitudes(x, n_fft, hop, window):
        bins = torch.view_as_real(torch.stft(x, n_fft, hop, len(window), window, return_complex=True))
        return bins.square().sum(-1).clamp_min(1e-7).sqrt()
    def step():
        loss = 0
        for size in sizes:
            found = magnitudes(estimates, *size)
            with torch.no_grad(): expected = magnitudes(targets, *size)
            loss = loss + torch.linalg.vector_norm(expected - found) / torch.linalg.vector_norm(expected) + F.l1_loss(found.log(), expected.log())
        loss = loss / len(sizes)
        torch.autograd.grad(loss, estimates); return loss.item()
    return step


class LogMel:
    """HiFi-GAN's log-mels: magnitudes in filters of Slaney's scale, at least 1e-5."""

    def __init__(self, rate, n_fft):
        from transformers.audio_utils import mel_filter_bank
        self.n_fft, self.hop, self.window = n_fft, n_fft // 4, torch.hann_window(n_fft)
        filters = mel_filter_bank(n_fft // 2 + 1, min(n_fft // 8, 80), 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
        self.filters = torch.tensor(filters.T, dtype=torch.float32, device=self.window.device)

    def __call__(self, x):
        pad = (self.n_fft - self.hop) // 2
        x = F.pad(x[:, None], (pad, pad), "reflect")[:, 0]
        bins = torch.view_as_real(torch.stft(x, self.n_fft, self.hop, self.n_fft, self.window, center=False, return_complex=True))
        return (self.filters @ (bins.square().sum(-1) + 1e-9).sqrt()).clamp_min(1e-5).log()


def codec_train(batch=16, samples=4000, dim=64):
    """A small Encodec of 8 kHz: transformers' encoder and decoder (16 filters, ratios 8, 5 and 4, one LSTM layer of 128, weight norm, causal, 64 latent channels) and a residual quantiser of 4 stages of 256 codes, which follow moving averages. Mean absolute differences of samples and of log-mels of 5 lengths from 64 to 1,024, the mean squared distance that each stage leaves. 724,978 parameters; batch 16 of half a second, AdamW 1e-3: one step without critics."""
    from transformers import EncodecConfig
    from transformers.models.encodec.modeling_encodec import EncodecDecoder, EncodecEncoder
    config = EncodecConfig(target_bandwidths=[0.4, 0.8, 1.2, 1.6], sampling_rate=8000, hidden_size=dim, num_filters=16, upsampling_ratios=[8, 5, 4], num_lstm_layers=1, codebook_size=256)
    encoder, decoder = EncodecEncoder(config), EncodecDecoder(config)
    optimizer = torch.optim.AdamW(parameters([encoder, decoder], 724_978), 1e-3, fused=True)
    frames, mels = samples // 160, [LogMel(8000, n_fft) for n_fft in (64, 128, 256, 512, 1024)]
    quantizer, x = ResidualQuantizer(4, 256, dim, batch * frames), 2 * torch.rand(batch, 1, samples) - 1
    def step():
        z, commitment = quantizer(encoder(x).transpose(1, 2).reshape(-1, dim))
        y = decoder(z.view(batch, frames, dim).transpose(1, 2))
        with torch.no_grad(): targets = [mel(x[:, 0]) for mel in mels]
        distance = sum(F.l1_loss(mel(y[:, 0]), target) for mel, target in zip(mels, targets)) / len(mels)
        loss = F.l1_loss(y, x) + distance + commitment / z.numel()
        optimizer.zero_grad(); loss.backward(); optimizer.step(); quantizer.follow(); return loss.item()
    return step


def hifigan_infer(frames=63):
    """SpeechT5's HiFi-GAN of random weights: 63 frames of 80 mels to 16,128 samples, a second of 16 kHz. 12,656,257 parameters."""
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig
    model, mel = SpeechT5HifiGan(SpeechT5HifiGanConfig()).eval(), torch.randn(1, frames, 80)
    parameters([model], 12_656_257)
    def step():
        with torch.inference_mode(): wave = model(mel)
        assert wave.shape == (1, frames * 256); return wave.mean().item()
    return step


def vits_speak(tokens=63):
    """A voice of MMS (VITS) of random weights: 63 symbols of 3 frames each to 48,384 samples, 3.024 seconds of 16 kHz. So that durations are fixed, the splines of their predictor are the identity and their noise is 0; they are computed all the same. 36,284,592 parameters."""
    from transformers import VitsConfig, VitsModel
    # exp(0) / 0.4 frames, rounded up.
    model = VitsModel(VitsConfig(noise_scale_duration=0.0, speaking_rate=0.4)).eval()
    parameters([model], 36_284_592)
    for flow in model.duration_predictor.flows:
        if hasattr(flow, "conv_proj"): nn.init.zeros_(flow.conv_proj.weight); nn.init.zeros_(flow.conv_proj.bias)
    ids = torch.arange(tokens)[None] % 38
    def step():
        with torch.inference_mode(): wave = model(ids).waveform
        assert wave.shape == (1, tokens * 3 * 256); return wave.mean().item()
    return step


def musicgen_small(steps=24):
    """The decoder of MusicGen small of random weights, told a text of 16 vectors: 24 steps of 4 codebooks, with a cache and guidance of 3, greedy. 419,584,000 parameters."""
    from transformers import DynamicCache, EncoderDecoderCache, MusicgenForCausalLM
    from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig
    model = MusicgenForCausalLM(MusicgenDecoderConfig()).eval()
    parameters([model], 419_584_000)
    pad, text = model.config.pad_token_id, torch.randn(1, 16, model.config.hidden_size)
    model.generation_config.decoder_start_token_id = pad
    states, ids = torch.cat([text, torch.zeros_like(text)]), torch.full((4, 1), pad)
    def step():
        # By default, generate makes a cache without a part for the text.
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        codes = model.generate(ids, attention_mask=torch.ones(1, 1, dtype=torch.long), encoder_hidden_states=states, guidance_scale=3.0, do_sample=False, max_new_tokens=steps, num_return_sequences=1, cache=cache)
        assert codes.shape == (1, 4, steps - 3); return codes
    return step


WORKLOADS = dict(conv1d_stack=conv1d_stack, stft_loss=stft_loss, codec_train=codec_train, hifigan_infer=hifigan_infer, vits_speak=vits_speak, musicgen_small=musicgen_small)
