"""The model of `reproduce_sound codes` for `sound_peers.py`: the decoder of MusicGen over the codes
of a codec, told digit and speaker."""
import torch, torch.nn as nn, torch.nn.functional as F
from sound_peer_clips import RATE, Classifier, fitted, names, recordings, share
from sound_peer_train import Average, order, train

CODES, WIDTH, DELAY, GAIN = 256, 192, 800, 1.5
NONE = -100  # A place of the delay pattern without a code, as `cross_entropy` ignores it.


class Codec:
    """A codec in the layout of transformers, at its highest rate."""

    def __init__(self, folder):
        from transformers import EncodecModel
        self.model = EncodecModel.from_pretrained(folder).eval()

    @torch.no_grad()
    def encode(self, waves, at_once=50):
        """`[batch, books, frames]` of `[batch, time]`."""
        rate = self.model.config.target_bandwidths[-1]
        return torch.cat([self.model.encode(part[:, None], bandwidth=rate).audio_codes[0]
                          for part in waves.split(at_once)])

    @torch.no_grad()
    def decode(self, codes, at_once=50):
        return torch.cat([self.model.decode(part[None], [None]).audio_values[:, 0]
                          for part in codes.split(at_once)])


class Decoder(nn.Module):
    """MusicGen's decoder; its condition is an embedding for each class."""

    def __init__(self, books, sizes):
        super().__init__()
        from transformers import MusicgenDecoderConfig, MusicgenForCausalLM
        self.network = MusicgenForCausalLM(MusicgenDecoderConfig(
            vocab_size=CODES, max_position_embeddings=192, num_hidden_layers=4, ffn_dim=4 * WIDTH,
            num_attention_heads=6, hidden_size=WIDTH, num_codebooks=books, pad_token_id=CODES,
            bos_token_id=CODES))
        self.classes = nn.ModuleList(nn.Embedding(size, WIDTH) for size in sizes)
        for table in self.classes:
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens, classes, told):
        """Logits of the next tokens, `[batch, books, steps, CODES]`. Where `told` is 0, the classes
        are hidden: the network attends to zeros."""
        states = torch.stack([table(of) for table, of in zip(self.classes, classes.T)], 1)
        logits = self.network(tokens.flatten(0, 1), use_cache=False,
                              encoder_hidden_states=states * told[:, None, None]).logits
        return logits.view(*tokens.shape, CODES)


def delayed(codes):
    """Every book a step after the one before it: the inputs of the steps, and their targets."""
    _, books, frames = codes.shape
    targets = codes.new_full((len(codes), books, frames + books - 1), NONE)
    for book in range(books):
        targets[:, book, book:book + frames] = codes[:, book]
    inputs = F.pad(targets, (1, -1), value=NONE)
    return torch.where(inputs == NONE, CODES, inputs), targets


def nats(model, codes, classes, told):
    inputs, targets = delayed(codes)
    logits = model(inputs, classes, told)
    return F.cross_entropy(logits.flatten(0, 2), targets.flatten(), ignore_index=NONE)


@torch.no_grad()
def sampled(model, classes, books, frames, guidance=1.5, temperature=0.9, top_k=250):
    """Codes of classes, `[batch, books, frames]`."""
    tokens = torch.full((len(classes), books, 1), CODES)
    told, both = torch.ones(2 * len(classes)), torch.cat([classes, classes])
    told[len(classes):] = 0
    for step in range(frames + books - 1):
        logits = model(torch.cat([tokens, tokens]), both, told)[:, :, -1]
        with_classes, without = logits.chunk(2)
        logits = (without + guidance * (with_classes - without)) / temperature
        least = logits.topk(top_k).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
        drawn = torch.distributions.Categorical(logits=logits).sample()
        frame = step - torch.arange(books)
        drawn = torch.where((frame >= 0) & (frame < frames), drawn, CODES)
        tokens = torch.cat([tokens, drawn[..., None]], 2)
    return torch.stack([tokens[:, book, book + 1:book + 1 + frames] for book in range(books)], 1)


def changed(waves):
    """Clips that begin later, and are louder or quieter."""
    delays = torch.randint(DELAY, (len(waves),)).tolist()
    later = torch.stack([F.pad(wave, (delay, -delay)) for wave, delay in zip(waves, delays)])
    return later * GAIN ** (2 * torch.rand(len(waves), 1) - 1)


def codes(steps, data, folder, digits_by, speakers_by, samples, clips=None, versions=4, batch=64):
    """The share of generated sounds whose digit and speaker are read as told, and nats a code of
    the first `clips` test clips."""
    codec = Codec(folder)
    speakers = sorted({speaker for test in (False, True) for *_, speaker in names(data, test)})

    def split(test):
        """Clips of a second, their lengths, and their digits and speakers."""
        waves = [wave for wave, _digit in recordings(data, test)]
        classes = [[digit, speakers.index(speaker)] for _, digit, speaker in names(data, test)]
        return (torch.stack([fitted(wave, RATE) for wave in waves]),
                [min(len(wave), RATE) for wave in waves], torch.tensor(classes))

    waves, _, classes = split(False)
    learnt = torch.cat([codec.encode(waves if version == 0 else changed(waves))
                        for version in range(versions)])
    classes = classes.repeat(versions, 1)
    _, books, frames = learnt.shape
    model = Decoder(books, (10, len(speakers)))
    average, batches = Average(model), order(len(learnt), batch)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, (0.9, 0.98), weight_decay=0.1)

    def step(_):
        chosen = next(batches)
        loss = nats(model, learnt[chosen], classes[chosen], (torch.rand(batch) >= 0.1).float())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.follow(model)
        return loss.item()

    ms = train(step, steps, [optimizer], 200)
    best = average.model.eval()
    waves, lengths, classes = (of[:clips] for of in split(True))
    coded = codec.encode(waves)
    with torch.no_grad():
        each = [nats(best, c, k, torch.ones(len(c))).item() * len(c)
                for c, k in zip(coded.split(50), classes.split(50))]
    found = dict(ms=ms, nats=sum(each) / len(coded))
    if not (digits_by or speakers_by):
        return found
    at = torch.arange(samples)
    asked = torch.stack([at % 10, at // 10 % len(speakers)], 1)
    made = torch.cat([codec.decode(sampled(best, part, books, frames)) for part in asked.split(50)])
    again = [wave[:length] for wave, length in zip(codec.decode(coded), lengths)]
    for kind, (name, by) in enumerate([("digit", digits_by), ("speaker", speakers_by)]):
        if by:
            read = Classifier(by)
            found[name] = share(read(made), asked[:, kind].tolist())
            found[f"{name}_of_decoded"] = share(read(again), classes[:, kind].tolist())
    return found
