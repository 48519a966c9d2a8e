"""The networks of `reproduce_sound`, `speak`, `effects` and `music` in PyTorch: milliseconds a
step, and quality after as many steps, beside ours in docs/results.md.

    pip install torch numpy safetensors transformers diffusers
    python sound_peers.py codec --data RECORDINGS --classifier DIR [--steps 15000]
    python sound_peers.py vocoder --data RECORDINGS --classifier DIR [--steps 8000]
    python sound_peers.py mel --data RECORDINGS --classifier DIR [--steps 3000]
    python sound_peers.py codes --data RECORDINGS --codec DIR --classifier DIR \\
        --speaker-classifier DIR [--steps 4000]
    python sound_peers.py speech --data RECORDINGS --classifier DIR [--steps 5000]
    python sound_peers.py effects --classifier DIR [--steps 1500]
    python sound_peers.py chorales --data JSB [--steps 3000]
    python sound_peers.py chorales --data JSB --grid quarters [--steps 4000]

RECORDINGS has FSDD's WAV files; indices below 5 are the test set. JSB has
Jsb16thSeparated.json.gz and jsb-chorales-quarter.json.gz. Effects are computed here, by the recipes
of the library. --classifier is the `final` of `reproduce_sound classifier`, --speaker-classifier
that with `--label speaker`, --codec the `codec` of `reproduce_sound codec`; for `effects`,
--classifier is the `model/classifier` of a run of `effects`, for `speech` the `reader/final` of a
run of `speak`. So both sides are read by the same
networks, and learn the same codes; without a classifier, nothing is read.

Sizes, batches, losses, optimizers, schedules and averages of weights are ours; the order of the
data and the initial weights are not. Networks are those of transformers (Encodec without its
quantiser, HiFi-GAN, MusicGen's decoder) and diffusers (U-net); quantiser, HiFi-GAN with a harmonic
source, discriminators, network of magnitudes and GPT are written here.
Prints one JSON line; times are of training steps alone, medians. --network chooses the vocoder.
--clips is the number of clips that are measured, or of effects that are learned; --samples the
number of sounds that `mel`, `codes`, `speech` and `effects` draw.
"""
import argparse, json, math, time
import torch, torch.nn as nn, torch.nn.functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm
from sound_peer_chorales import chorales
from sound_peer_clips import (
    RATE, RESOLUTIONS, Classifier, LogMel, distances, fitted, kept, recordings, share,
    stft_distance)
from sound_peer_codes import codes
from sound_peer_effects import effects
from sound_peer_layers import Periods, Quantizer, Resolution
from sound_peer_magnitude import magnitude
from sound_peer_source import Generator, pitch_of, scaled
from sound_peer_spectra import Images, draw, learn
from sound_peer_speech import speech
from sound_peer_train import order, train

P = argparse.ArgumentParser()
P.add_argument("what", choices=[
    "codec", "vocoder", "mel", "codes", "speech", "effects", "chorales"])
P.add_argument("--data")
P.add_argument("--codec")
P.add_argument("--classifier")
P.add_argument("--speaker-classifier")
P.add_argument("--grid", choices=["sixteenths", "quarters"], default="sixteenths")
P.add_argument("--steps", type=int)
P.add_argument("--network", choices=["magnitude", "nsf", "hifi-gan"], default="magnitude")
P.add_argument("--critics-from", type=int, default=8000)
P.add_argument("--clips", type=int)
P.add_argument("--samples", type=int)
P.add_argument("--seed", type=int, default=0)
P.add_argument("--threads", type=int, default=2)
A = P.parse_args()
for option in ["data"] * (A.what != "effects") + ["codec"] * (A.what == "codes"):
    if not getattr(A, option):
        P.error(f"{A.what} needs --{option}")
torch.set_num_threads(A.threads)
torch.manual_seed(A.seed)


def codec(steps):
    from transformers import EncodecConfig
    from transformers.models.encodec.modeling_encodec import EncodecDecoder, EncodecEncoder
    config = EncodecConfig(
        target_bandwidths=[0.4, 0.8, 1.2, 1.6], sampling_rate=RATE, hidden_size=64,
        num_filters=16, upsampling_ratios=[8, 5, 4], num_lstm_layers=1, codebook_size=256)
    encoder, decoder = scaled(EncodecEncoder(config)), scaled(EncodecDecoder(config))
    quantizer = Quantizer()
    weights = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(weights, 3e-3, (0.8, 0.99))
    clips = recordings(A.data, False)
    mels = [LogMel(n, n // 4, min(n // 8, 80)) for n in (64, 128, 256, 512, 1024)]
    batches = order(len(clips), 16)

    def step(_):
        x = torch.stack([fitted(clips[i][0], 4000, True) for i in next(batches)])
        z, left, _codes = quantizer(encoder(x[:, None]))
        y = decoder(z)[:, 0]
        with torch.no_grad():
            targets = [mel(x) for mel in mels]
        mel = sum(F.l1_loss(m(y), t) for m, t in zip(mels, targets)) / len(mels)
        loss = F.l1_loss(y, x) + mel + left
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        quantizer.follow()
        return loss.item()

    ms = train(step, steps, [optimizer], 200)
    encoder.eval(), decoder.eval(), quantizer.eval()
    originals, decoded, used = [], [], []
    with torch.no_grad():
        for x, _digit in recordings(A.data, True)[:A.clips]:
            length = min(len(x), RATE)
            z, _, codes = quantizer(encoder(fitted(x, RATE)[None, None]))
            originals.append(fitted(x, RATE)[:length])
            decoded.append(decoder(z)[0, 0, :length])
            used.append(codes[:, :max(1, math.ceil(length / 160))])
    counts = [torch.bincount(c, minlength=256).float() for c in torch.cat(used, 1)]
    usage = [float((c > 0.1 * c.sum() / 256).float().mean()) for c in counts]
    return dict(ms=ms, usage=usage, **distances(decoded, originals),
                **kept(A.classifier, decoded, originals))


def hifi_gan(mean, deviation):
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig
    network = SpeechT5HifiGan(SpeechT5HifiGanConfig(
        model_in_dim=40, sampling_rate=RATE, upsample_initial_channel=64, upsample_rates=[4] * 3,
        upsample_kernel_sizes=[8] * 3, resblock_kernel_sizes=[3, 7],
        resblock_dilation_sizes=[[1, 3]] * 2, normalize_before=True))
    network.mean.copy_(mean), network.scale.copy_(deviation)
    for module in scaled(network).modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            weight_norm(module)
    return network


def vocoder(steps):
    mel = LogMel(256, 64, 40)
    ms, generator = magnitude(A.data, steps) if A.network == "magnitude" else adversarial(steps)
    originals = [fitted(x, RATE)[:len(x)] for x, _ in recordings(A.data, True)[:A.clips]]
    with torch.no_grad():
        mels = [mel(x[None]) for x in originals]
        generator(mels[0])
        began = time.perf_counter()
        found = [generator(m)[0] for m in mels]
        work = time.perf_counter() - began
        floor = [mel.griffin_lim(m)[0] for m in mels]
    ours, theirs = distances(found, originals), distances(floor, originals)
    return dict(ms=ms, rtf=work * RATE / sum(map(len, found)), ratio=ours["stft"] / theirs["stft"],
                **ours, **kept(A.classifier, found, originals))


def adversarial(steps):
    """Milliseconds of a step, and what makes waveforms of log-mels."""
    clips, mel = recordings(A.data, False), LogMel(256, 64, 40)
    all_mels = torch.cat([mel(x[None])[0] for x, _ in clips], 1)
    statistics = all_mels.mean(1), all_mels.std(1)
    with_source = A.network == "nsf"
    network = Generator(*statistics) if with_source else hifi_gan(*statistics)
    generator = network if with_source else lambda mel: network(mel.transpose(1, 2))
    critics = nn.ModuleList([Periods(p) for p in (2, 3, 5)] + [Resolution(s) for s in RESOLUTIONS])
    settings = dict(lr=2e-3, betas=(0.8, 0.99), weight_decay=0.01)
    of_generator = torch.optim.AdamW(network.parameters(), **settings)
    of_critics = torch.optim.AdamW(critics.parameters(), **settings)
    batches = order(len(clips), 16)

    def step(index):
        x = torch.stack([fitted(clips[i][0], 4000, True) for i in next(batches)])
        spectra, own = mel(x), 0
        if with_source:
            pitch = pitch_of(x, 64)
            y, own = generator(spectra, pitch), network.pitch_loss(spectra, pitch)
        else:
            y = generator(spectra)
        x = x[:, :y.shape[1]]
        if index >= A.critics_from:
            loss = 0
            for critic in critics:
                real, fake = critic(x)[0], critic(y.detach())[0]
                loss = loss + 0.5 * ((real - 1).square().mean() + fake.square().mean())
            of_critics.zero_grad()
            loss.backward()
            of_critics.step()
        loss = 45 * F.l1_loss(mel(y), mel(x)) + 10 * stft_distance(y, x) + own
        if index >= A.critics_from:
            for critic in critics.requires_grad_(False):
                with torch.no_grad():
                    real = critic(x)[1]
                logits, fake = critic(y)
                loss = loss + 2 * 0.5 * (logits - 1).square().mean()
                loss = loss + 2 * sum(F.l1_loss(a, b) for a, b in zip(fake, real))
        of_generator.zero_grad()
        loss.backward()
        of_generator.step()
        critics.requires_grad_(True)
        return loss.item()

    ms = train(step, steps, [of_generator, of_critics], 200)
    for module in network.modules():
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
    network.eval()
    return ms, generator


def mel(steps):
    images, clips = Images(LogMel(512, 128, 40, 384), 64, 0.5), recordings(A.data, False)
    waves = torch.stack([fitted(x, RATE) for x, _ in clips])
    digits = torch.tensor([digit for _, digit in clips])
    ms, network = learn(images.of(waves), digits, (32, 64, 128), 10, steps, batch=16, warmup=200,
                        decay=0.999)
    if not A.classifier:
        return dict(ms=ms)
    digits = torch.arange(A.samples or 300) % 10
    waves = images.waves(draw(network, digits))
    return dict(ms=ms, right=share(Classifier(A.classifier)(waves), digits.tolist()))


STEPS = dict(codec=15000, vocoder=8000 if A.network == "magnitude" else 10000, mel=3000,
             codes=4000, speech=5000, effects=1500, chorales=4000 if A.grid == "quarters" else 3000)
steps = A.steps or STEPS[A.what]
WORK = dict(
    codec=codec, vocoder=vocoder, mel=mel,
    codes=lambda steps: codes(steps, A.data, A.codec, A.classifier, A.speaker_classifier,
                              A.samples or 600, A.clips),
    speech=lambda steps: speech(A, steps),
    effects=lambda steps: effects(steps, A.clips or 4096, A.classifier, A.samples or 320, A.seed),
    chorales=lambda steps: chorales(A.data, A.grid, steps))
found = WORK[A.what](steps)
print(json.dumps(dict(what=A.what, steps=steps, seed=A.seed, threads=A.threads, **found)))
