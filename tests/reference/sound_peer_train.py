"""The training loop of `sound_peers.py`."""
import copy, math, time
import numpy as np, torch


def order(count, batch):
    """Indices of batches without end: a permutation after the other."""
    rest = torch.empty(0, dtype=torch.long)
    while True:
        while len(rest) < batch:
            rest = torch.cat([rest, torch.randperm(count)])
        yield rest[:batch].tolist()
        rest = rest[batch:]


def factor(step, steps, warmup, least=0.0):
    """Linear warm-up, then half a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup - 1))
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * progress))


def train(step, steps, optimizers, warmup, least=0.0, after=None):
    """Runs all steps; the median of their milliseconds. `after` is not timed."""
    times, bases = [], [[g["lr"] for g in o.param_groups] for o in optimizers]
    for index in range(steps):
        for optimizer, base in zip(optimizers, bases):
            for group, rate in zip(optimizer.param_groups, base):
                group["lr"] = rate * factor(index, steps, warmup, least)
        began = time.perf_counter()
        loss = step(index)
        times.append(1000 * (time.perf_counter() - began))
        if index % 100 == 99:
            print(f"# {index + 1} {loss:.4f}", flush=True)
        if after:
            after(index + 1)
    return float(np.median(times))


class Average:
    """A moving average of weights whose decay grows to `most`."""

    def __init__(self, model, most=0.999):
        self.model, self.most, self.updates = copy.deepcopy(model), most, 0

    @torch.no_grad()
    def follow(self, model):
        decay = min(self.most, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for ours, theirs in zip(self.model.parameters(), model.parameters()):
            ours.lerp_(theirs, 1 - decay)
