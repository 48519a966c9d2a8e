"""The GPT of `music --data` over chorales, for `sound_peers.py`."""
import copy, gzip, json, math, os
import torch, torch.nn as nn, torch.nn.functional as F
from sound_peer_train import order, train

HEADS, LAYERS = 4, 4
# File, lowest and highest pitch, context, width, dropout, batch.
GRIDS = dict(
    # Convention C, nats a note: four voices in every sixteenth; token 0 is silence.
    sixteenths=("Jsb16thSeparated.json.gz", 29, 88, 512, 192, 0.1, 8),
    # Convention B, nats a frame: the pitches of a quarter in ascending order; token 0 is its end.
    quarters=("jsb-chorales-quarter.json.gz", 21, 108, 256, 128, 0.2, 16))


class Block(nn.Module):
    """A block of GPT-2 without biases, with rotary positions."""

    def __init__(self, context, width, dropout):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, False), nn.Linear(width, width, False)
        self.up, self.down = (nn.Linear(width, 4 * width, False),
                              nn.Linear(4 * width, width, False))
        for layer, scale in [(self.qkv, 1), (self.up, 1), (self.out, 2 * LAYERS),
                             (self.down, 2 * LAYERS)]:
            nn.init.normal_(layer.weight, std=0.02 / math.sqrt(scale))
        self.drop = nn.Dropout(dropout)
        pairs = width // HEADS // 2
        turns = torch.arange(context)[:, None] * 1e4 ** -(torch.arange(pairs) / pairs)
        self.register_buffer("cos", turns.cos())
        self.register_buffer("sin", turns.sin())

    def turned(self, x):
        a, b = x.chunk(2, -1)
        cos, sin = self.cos[:x.shape[2]], self.sin[:x.shape[2]]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def forward(self, x):
        batch, time, _ = x.shape
        qkv = self.qkv(self.norms[0](x)).view(batch, time, 3, HEADS, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v, is_causal=True)
        x = x + self.drop(self.out(y.transpose(1, 2).reshape(batch, time, -1)))
        return x + self.drop(self.down(F.gelu(self.up(self.norms[1](x)))))


class Gpt(nn.Module):
    """Token, rank in the step and step in the bar of the next note; the output has the embedding's
    weight. Embeddings of places begin as 0."""

    def __init__(self, vocabulary, context, width, dropout):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, width) for n in (vocabulary, 20, 16))
        for table, std in zip(self.tables, (0.02, 0, 0)):
            nn.init.normal_(table.weight, std=std)
        self.drop, self.norm = nn.Dropout(dropout), nn.LayerNorm(width, bias=False)
        self.blocks = nn.ModuleList(Block(context, width, dropout) for _ in range(LAYERS))

    def forward(self, inputs):
        """Logits of the next tokens, of `[batch, 3, time]`: tokens, ranks and steps."""
        x = self.drop(sum(table(inputs[:, row]) for row, table in enumerate(self.tables)))
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.tables[0].weight.T


def chorales(data, grid, steps):
    """Trains, and evaluates the weights that are best on the valid pieces, in nats a unit."""
    name, lowest, highest, context, width, dropout, batch = GRIDS[grid]
    by_quarters, start = grid == "quarters", highest - lowest + 2
    with gzip.open(os.path.join(data, name) if os.path.isdir(data) else data) as file:
        pieces = json.load(file)

    def encoded(piece, shift=0):
        """Tokens, and rank and step of what follows each, `[3, time]`."""
        rows = [(start, 0, 0)]
        for index, notes in enumerate(piece, 1):
            tokens = [0 if note < 0 else int(note) + shift - lowest + 1 for note in notes]
            if by_quarters:
                tokens = sorted(set(tokens)) + [0]
            rows += [(token, rank, (index - 1) % 16) for rank, token in enumerate(tokens, 1)]
            rows[-1] = (tokens[-1], 0, index % 16)
        return torch.tensor([*rows, (start, 0, 0)]).T

    def shifts(piece):
        notes = [note for step in piece for note in step if note >= 0]
        return [s for s in range(-5, 7)
                if min(notes) + s >= lowest and max(notes) + s <= highest]

    train_set = [[encoded(piece, s) for s in shifts(piece)] for piece in pieces["train"]]
    items = [i for i, kinds in enumerate(train_set)
             for _ in range(-(-(kinds[0].shape[1] - 1) // context))]
    model, batches = Gpt(start + 1, context, width, dropout), order(len(items), batch)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [dict(params=matrices, weight_decay=0.1), dict(params=others, weight_decay=0.0)],
        2e-3, (0.9, 0.99))

    def window(piece, first, known=0):
        """Inputs, targets and weights from a place on, padded to the context."""
        part = piece[:, first:first + context + 1]
        at, rest = torch.arange(context), context + 1 - part.shape[1]
        part = F.pad(part, (0, rest))
        return part[:, :-1], part[0, 1:], ((at >= known) & (at < context - rest)).float()

    def boundary(piece, at, least):
        """The last place up to `at` where a step may begin."""
        found = [place for place in range(at, least - 1, -1) if piece[1, place] == 0]
        return found[0] if found else at

    def nats(windows):
        """The sum over all targets that count, and their number."""
        x, y, weights = (torch.stack(of) for of in zip(*windows))
        each = F.cross_entropy(model(x).transpose(1, 2), y, reduction="none")
        return (each * weights).sum(), weights.sum()

    def step(_):
        drawn = []
        for item in next(batches):
            kinds = train_set[items[item]]
            piece = kinds[int(torch.randint(len(kinds), ()))]
            last, half = max(0, piece.shape[1] - 1 - context), context // 2
            wanted = int(torch.randint(last + 2 * half + 1, ())) - half
            drawn.append(window(piece, boundary(piece, max(0, min(wanted, last)), 0)))
        total, count = nats(drawn)
        loss = total / count
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    @torch.no_grad()
    def nats_a_unit(split, stride):
        """Every token from all before it, or from nearly `context - stride` of them."""
        windows, units, total = [], 0, 0.0
        for piece in pieces[split]:
            units += len(piece) if by_quarters else sum(len(notes) for notes in piece)
            piece = encoded(piece)[:, :-1]
            first = done = 0
            while done < piece.shape[1] - 1:
                windows.append(window(piece, first, done - first))
                done = min(piece.shape[1] - 1, first + context)
                first = boundary(piece, min(done, first + stride), first + 1)
        model.eval()
        for at in range(0, len(windows), 16):
            total += nats(windows[at:at + 16])[0].item()
        model.train()
        return total / units

    best = [math.inf, None]

    def after(done):
        if done % 250 == 0 or done == steps:
            found = nats_a_unit("valid", context // 2)
            print(f"# {done} valid {found:.4f}", flush=True)
            if found < best[0]:
                best[:] = found, copy.deepcopy(model.state_dict())

    ms = train(step, steps, [optimizer], min(100, steps // 10), 0.05, after)
    model.load_state_dict(best[1])
    found = {split: nats_a_unit(split, context // 8) for split in ("valid", "test")}
    return dict(grid=grid, ms=ms, **found)
