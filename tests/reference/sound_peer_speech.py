"""The speaker that `speak --data` trains on recordings of digits, for `sound_peers.py`: symbols to
spectra, aligned by search, with a decoder trained by flow matching.

Encoder and predictor of durations are those of VITS in transformers; the rest is written here.
Sequences of 4 to 6 digits are spoken by Griffin-Lim, cut into words by the durations of their
symbols, and read by the classifier. The `reader/final` of a run of `speak` is one.
"""
import math
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from sound_peer_clips import RATE, Classifier, LogMel, names, recordings, share
from sound_peer_train import Average, order, train

WORDS = "zero one two three four five six seven eight nine".split()
SYMBOLS = ["<pad>", " ", *sorted(set("".join(WORDS)))]
BLANK, SPACE = 0, 1
HOP, MELS, WIDTH = 64, 40, 96
BATCH, JOINED, PAUSE = 32, 3, RATE // 5
LONG, EULER_STEPS, TEMPERATURE = (4, 5, 6), 10, 0.667
LAST_NOISE = 1e-4


def symbols(text):
    """Ids of letters and spaces, with a blank before, between and after them."""
    return [BLANK] + [i for c in text for i in (SYMBOLS.index(c), BLANK)]


def chance(count):
    return int(torch.randint(count, ()))


class Joined:
    """Training recordings, each followed by up to two others of its speaker, with pauses."""

    def __init__(self, folder):
        self.clips, self.mel = recordings(folder, False), LogMel(256, HOP, MELS)
        speakers = [speaker for _path, _digit, speaker in names(folder, False)]
        known = sorted(set(speakers))
        self.speaker = [known.index(name) for name in speakers]
        self.of_speaker = [[] for _ in known]
        for index, speaker in enumerate(self.speaker):
            self.of_speaker[speaker].append(index)

    def alone(self, index):
        wave, digit = self.clips[index]
        return symbols(WORDS[digit]), self.mel(wave[None])[0]

    def item(self, index):
        """Ids of symbols and a spectrum `[mels, frames]`."""
        wave, digit = self.clips[index]
        waves, text, others = [wave], WORDS[digit], self.of_speaker[self.speaker[index]]
        for _ in range(chance(JOINED)):
            wave, digit = self.clips[others[chance(len(others))]]
            waves += [torch.zeros(chance(PAUSE + 1)), wave]
            text += " " + WORDS[digit]
        ids, log_mel = symbols(text), self.mel(torch.cat(waves)[None])[0]
        return (ids, log_mel) if len(ids) <= log_mel.shape[1] else self.alone(index)

    def batch(self, indices):
        """Ids and spectra with zeros behind the shorter ones, speakers, and both lengths."""
        ids, mels = zip(*map(self.item, indices))
        return (pad_sequence([torch.tensor(i) for i in ids], True),
                pad_sequence([m.T for m in mels], True).transpose(1, 2),
                torch.tensor([self.speaker[i] for i in indices]),
                torch.tensor([len(i) for i in ids]), torch.tensor([m.shape[1] for m in mels]))


def mask_of(lengths):
    return (torch.arange(int(lengths.max())) < lengths[:, None]).float()[:, None]


def aligned(values, lengths, frames):
    """The best monotonic alignment by values `[batch, symbols, frames]`: the symbol of each frame,
    and the number of frames of each symbol."""
    values, lengths, frames = values.double().numpy(), lengths.numpy(), frames.numpy()
    batch, count, most = values.shape
    best, step = np.full((batch, count), -np.inf), np.full((batch, count), -np.inf)
    step[:, 0] = 0
    begins = np.zeros((most, batch, count), bool)
    for frame in range(most):
        np.greater(step, best, out=begins[frame])
        best = np.maximum(step, best) + values[:, :, frame]
        step[:, 0], step[:, 1:] = -np.inf, best[:, :-1]
    rows, at = np.arange(batch), lengths - 1
    path, durations = np.zeros((batch, most), int), np.zeros((batch, count), int)
    for frame in reversed(range(most)):
        inside = frame < frames
        path[:, frame] = at * inside
        durations[rows, at] += inside
        at = at - (begins[frame, rows, at] & inside)
    return torch.tensor(path), torch.tensor(durations)


def normed(norm, x):
    return norm(x.transpose(1, 2)).transpose(1, 2)


def zeroed(layer):
    nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    def __init__(self, dilation):
        super().__init__()
        self.norm, self.modulation = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.dilated = nn.Conv1d(WIDTH, WIDTH, 3, padding=dilation, dilation=dilation)
        self.pointwise = zeroed(nn.Conv1d(WIDTH, WIDTH, 1))

    def forward(self, x, mask, condition):
        scale, shift = self.modulation(condition)[:, :, None].chunk(2, 1)
        y = normed(self.norm, x) * (scale + 1) + shift
        y = self.pointwise(F.silu(self.dilated(F.silu(y) * mask)))
        return (x + y) * mask


class Decoder(nn.Module):
    """The velocity of spectra between noise, at time 0, and speech, at time 1."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(2 * MELS, WIDTH, 1)
        self.time = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.speaker = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block(dilation) for dilation in 2 * (1, 2, 4, 8))
        self.norm, self.last = nn.LayerNorm(WIDTH), zeroed(nn.Conv1d(WIDTH, MELS, 1))
        half = WIDTH // 2
        self.register_buffer("turns", 1000 * 1e4 ** -(torch.arange(half) / half))

    def forward(self, x, mean, mask, time, speaker):
        angles = time[:, None] * self.turns
        waves = torch.cat([angles.sin(), angles.cos()], 1)
        condition = F.silu(self.time(waves) + self.speaker(speaker))
        x = self.first(torch.cat([x, mean], 1)) * mask
        for block in self.blocks:
            x = block(x, mask, condition)
        return self.last(F.silu(normed(self.norm, x))) * mask


class Speaker(nn.Module):
    def __init__(self, speakers, mean, deviation):
        super().__init__()
        from transformers import VitsConfig
        from transformers.models.vits.modeling_vits import VitsDurationPredictor, VitsEncoder
        config = VitsConfig(
            hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=2, window_size=4,
            ffn_dim=192, ffn_kernel_size=3, hidden_act="gelu", hidden_dropout=0.1,
            activation_dropout=0.1, attention_dropout=0.0, layerdrop=0.0, speaker_embedding_size=0,
            duration_predictor_filter_channels=96, duration_predictor_kernel_size=3,
            duration_predictor_dropout=0.1, attn_implementation="eager")
        self.mean, self.deviation = mean, deviation
        self.symbols = nn.Embedding(len(SYMBOLS), WIDTH)
        nn.init.normal_(self.symbols.weight, std=WIDTH ** -0.5)
        self.speakers = nn.Embedding(speakers, WIDTH)
        self.encoder, self.durations = VitsEncoder(config), VitsDurationPredictor(config)
        self.project, self.decoder = nn.Conv1d(WIDTH, MELS, 1), Decoder()

    def encoded(self, ids, mask, speaker):
        """Logarithms of durations `[batch, symbols]`, mean spectra `[batch, mels, symbols]`."""
        x = self.symbols(ids) * math.sqrt(WIDTH) + speaker[:, None]
        x = self.encoder(x, mask.transpose(1, 2), mask[:, 0])[0].transpose(1, 2)
        return self.durations(x, mask)[:, 0], self.project(x) * mask

    def losses(self, ids, log_mel, speaker, lengths, frames):
        """Of mean spectra, of durations, and of velocities."""
        token_mask, mask, speaker = mask_of(lengths), mask_of(frames), self.speakers(speaker)
        y = (log_mel - self.mean) / self.deviation * mask
        log_durations, means = self.encoded(ids, token_mask, speaker)
        with torch.no_grad():
            rows = means.transpose(1, 2)
            likelihood = rows @ y - 0.5 * rows.square().sum(2, keepdim=True)
        path, durations = aligned(likelihood, lengths, frames)
        off = (log_durations - durations.clamp_min(1).log()) * token_mask[:, 0]
        mean = means.gather(2, path[:, None].expand(-1, MELS, -1)) * mask
        count = MELS * frames.sum()
        noise, time = torch.randn_like(y), torch.rand(len(y))
        at = time[:, None, None]
        x = (noise * (1 + at * (LAST_NOISE - 1)) + y * at) * mask
        velocity = (y - noise * (1 - LAST_NOISE)) * mask
        found = self.decoder(x, mean, mask, time, speaker)
        prior = 0.5 * (y - mean).square().sum() / count + 0.5 * math.log(2 * math.pi)
        return prior, off.square().sum() / lengths.sum(), (found - velocity).square().sum() / count

    @torch.no_grad()
    def spoken(self, ids, speaker):
        """The spectrum of a text, `[1, mels, frames]`, and the frames of each symbol."""
        ids, speaker = torch.tensor([ids]), self.speakers(torch.tensor([speaker]))
        log_durations, means = self.encoded(ids, torch.ones(1, 1, ids.shape[1]), speaker)
        durations = log_durations[0].exp().round().clamp_min(1).long()
        mean = means.repeat_interleave(durations, 2)
        x, mask = TEMPERATURE * torch.randn_like(mean), torch.ones_like(mean[:, :1])
        for step in range(EULER_STEPS):
            time = torch.full((1,), step / EULER_STEPS)
            x = x + self.decoder(x, mean, mask, time, speaker) / EULER_STEPS
        return x * self.deviation + self.mean, durations


def words(ids, durations):
    """First and last sample of each word; blanks belong to the word that they are beside."""
    ends = durations.cumsum(0).tolist()
    spaces = [at for at, symbol in enumerate(ids) if symbol == SPACE]
    starts, stops = [0] + [ends[at] for at in spaces], [ends[at - 1] for at in spaces] + ends[-1:]
    return [(HOP * start, HOP * stop) for start, stop in zip(starts, stops)]


def speech(args, steps):
    data = Joined(args.data)
    values = torch.cat([data.alone(i)[1].flatten() for i in range(len(data.clips))]).double()
    model = Speaker(len(data.of_speaker), float(values.mean()), float(values.std(correction=0)))
    average, batches = Average(model, 0.998), order(len(data.clips), BATCH)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def step(_):
        loss = sum(model.losses(*data.batch(next(batches))))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.follow(model)
        return loss.item()

    ms = train(step, steps, [optimizer], 100, 0.05)
    if not args.classifier:
        return dict(ms=ms)
    best, waves, digits = average.model.eval(), [], []
    for index in range(args.samples or 300):
        chosen = torch.randint(10, (LONG[chance(len(LONG))],)).tolist()
        ids = symbols(" ".join(WORDS[digit] for digit in chosen))
        log_mel, durations = best.spoken(ids, index % len(data.of_speaker))
        wave = data.mel.griffin_lim(log_mel)[0]
        waves += [wave[start:stop] for start, stop in words(ids, durations)]
        digits += chosen
    return dict(ms=ms, right=share(Classifier(args.classifier)(waves), digits), digits=len(digits))
