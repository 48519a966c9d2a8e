"""The GPT of `music --data` over chorales in sixteenths, for `sound_peers.py`."""
import gzip, json, math
import torch, torch.nn as nn, torch.nn.functional as F
from sound_peer_train import order, train

START, CONTEXT, WIDTH, HEADS, LAYERS = 61, 512, 192, 4, 4


class Block(nn.Module):
    """A block of GPT-2 without biases, with rotary positions in half of the channels."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, False), nn.Linear(WIDTH, WIDTH, False)
        self.up, self.down = (nn.Linear(WIDTH, 4 * WIDTH, False),
                              nn.Linear(4 * WIDTH, WIDTH, False))
        for layer, scale in [(self.qkv, 1), (self.up, 1), (self.out, 2 * LAYERS),
                             (self.down, 2 * LAYERS)]:
            nn.init.normal_(layer.weight, std=0.02 / math.sqrt(scale))
        self.drop = nn.Dropout(0.1)
        pairs = WIDTH // HEADS // 4
        turns = torch.arange(CONTEXT)[:, None] * 1e4 ** -(torch.arange(pairs) / pairs)
        self.register_buffer("cos", turns.cos())
        self.register_buffer("sin", turns.sin())

    def turned(self, x):
        pairs, time = self.cos.shape[1], x.shape[2]
        a, b, rest = x[..., :pairs], x[..., pairs:2 * pairs], x[..., 2 * pairs:]
        cos, sin = self.cos[:time], self.sin[:time]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)

    def forward(self, x):
        batch, time, _ = x.shape
        qkv = self.qkv(self.norms[0](x)).view(batch, time, 3, HEADS, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v, is_causal=True)
        x = x + self.drop(self.out(y.transpose(1, 2).reshape(batch, time, -1)))
        y = self.down(F.gelu(self.up(self.norms[1](x)), approximate="tanh"))
        return x + self.drop(y)


class Gpt(nn.Module):
    """Token, voice and step in the bar of the next note; the output has the embedding's weight."""

    def __init__(self):
        super().__init__()
        self.tokens, self.slots, self.beats = (nn.Embedding(n, WIDTH) for n in (62, 20, 16))
        for table in (self.tokens, self.slots, self.beats):
            nn.init.normal_(table.weight, std=0.02)
        self.drop, self.norm = nn.Dropout(0.1), nn.LayerNorm(WIDTH, bias=False)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))

    def forward(self, tokens, first):
        """Logits of the next tokens; `first` is the number of the first one in its piece."""
        at = first[:, None] + torch.arange(tokens.shape[1])
        x = self.tokens(tokens) + self.slots(at % 4) + self.beats(at // 4 % 16)
        x = self.drop(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.tokens.weight.T


def chorales(data, steps):
    """Trains, and evaluates in nats a note."""
    with gzip.open(data) as file:
        pieces = json.load(file)

    def encoded(piece, shift):
        """Token 0 is silence, 1 to 60 are the pitches 29 to 88."""
        notes = [0 if note < 0 else note + shift - 28 for step in piece for note in step]
        return torch.tensor([START, *notes, START])

    def shifts(piece):
        notes = [note for step in piece for note in step if note >= 0]
        return [s for s in range(-5, 7) if min(notes) + s >= 29 and max(notes) + s <= 88]

    pieces = {split: [[[-1 if n is None else int(n) for n in step] for step in piece]
                      for piece in of] for split, of in pieces.items()}
    train_set = [[encoded(p, s) for s in shifts(p)] for p in pieces["train"]]
    items = [i for i, p in enumerate(train_set) for _ in range(-(-(len(p[0]) - 1) // CONTEXT))]
    model, batches = Gpt(), order(len(items), 8)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [dict(params=matrices, weight_decay=0.1), dict(params=others, weight_decay=0.0)],
        2e-3, (0.9, 0.99))

    def window(tokens, first):
        """Inputs, targets and weights of a window, padded to the context."""
        part = tokens[first:first + CONTEXT + 1]
        count, rest = len(part) - 1, CONTEXT + 1 - len(part)
        part = F.pad(part, (0, rest), value=START)
        return part[:-1], part[1:], (torch.arange(CONTEXT) < count).float()

    def step(_):
        drawn, firsts = [], []
        for item in next(batches):
            kinds = train_set[items[item]]
            tokens = kinds[int(torch.randint(len(kinds), ()))]
            last, half = max(0, len(tokens) - 1 - CONTEXT), CONTEXT // 2
            wanted = int(torch.randint(last + 2 * half + 1, ())) - half
            firsts.append(max(0, min(wanted, last)) // 4 * 4)
            drawn.append(window(tokens, firsts[-1]))
        x, y, weights = (torch.stack(of) for of in zip(*drawn))
        nats = F.cross_entropy(model(x, torch.tensor(firsts)).transpose(1, 2), y, reduction="none")
        loss = (nats * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    ms = train(step, steps, [optimizer], 100, 0.05)
    model.eval()

    def nats_a_note(split):
        """Every note from all before it, or from at least half a context."""
        total = count = 0
        with torch.no_grad():
            for piece in pieces[split]:
                tokens = encoded(piece, 0)[:-1]
                first = done = 0
                while done < len(tokens) - 1:
                    x, y, weights = window(tokens, first)
                    weights = weights * (torch.arange(CONTEXT) >= done - first)
                    logits = model(x[None], torch.tensor([first]))[0]
                    total += (F.cross_entropy(logits, y, reduction="none") * weights).sum().item()
                    count += int(weights.sum())
                    done = min(len(tokens) - 1, first + CONTEXT)
                    first += CONTEXT // 2
        return total / count

    return dict(ms=ms, valid=nats_a_note("valid"), test=nats_a_note("test"))
