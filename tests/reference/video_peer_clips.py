"""Moving MNIST digits and what is measured of clips, for `video_peers.py`. Clips are
`[batch, frames, 1, 32, 32]`."""
import gzip, os
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
from PIL import Image

CANVAS, DIGIT, SPEED, FLOOR = 32, 20, (1.0, 2.0), 0.1


def digits(folder, test):
    """Images `[count, 20, 20]` of 0 to 255 and classes of a split, in IDX files."""
    def read(kind, header):
        path = os.path.join(folder, f"{'t10k' if test else 'train'}-{kind}-ubyte")
        with (open(path, "rb") if os.path.exists(path) else gzip.open(path + ".gz")) as file:
            return np.frombuffer(file.read(), np.uint8, offset=header)

    images = read("images-idx3", 16).reshape(-1, 28, 28)
    small = [np.asarray(Image.fromarray(x).resize((DIGIT, DIGIT), Image.BILINEAR)) for x in images]
    classes = torch.tensor(read("labels-idx1", 8), dtype=torch.long)
    return torch.tensor(np.stack(small), dtype=torch.float32), classes


def moving(of, count, frames):
    """Clips in [0, 1] of random digits, and their classes: places, directions and speeds are
    uniform, walls reflect, and digits are drawn between pixels by linear interpolation."""
    images, classes = of
    chosen, travel = torch.randint(len(images), (count,)), CANVAS - DIGIT
    start = travel * torch.rand(count, 1, 2)
    angle = 2 * np.pi * torch.rand(count, 1, 1)
    speed = SPEED[0] + (SPEED[1] - SPEED[0]) * torch.rand(count, 1, 1)
    velocity = speed * torch.cat([angle.cos(), angle.sin()], -1)
    free = start + torch.arange(frames)[None, :, None] * velocity
    place = travel - (free % (2 * travel) - travel).abs()
    # Weights of the rows, or columns, of the image in those of the canvas.
    apart = torch.arange(CANVAS)[:, None] - torch.arange(DIGIT) - place[..., None, None]
    columns, rows = (1 - apart.abs()).clamp_min(0).unbind(2)
    drawn = rows @ images[chosen][:, None] @ columns.transpose(2, 3)
    return (drawn + 0.5).floor()[:, :, None] / 255, classes[chosen]


class LeNet(nn.Module):
    """Logits of grey images in [0, 1]."""

    def __init__(self, path):
        super().__init__()
        from safetensors.torch import load_file
        self.convnet = nn.ModuleDict(dict(
            c1=nn.Conv2d(1, 6, 5), c3=nn.Conv2d(6, 16, 5), c5=nn.Conv2d(16, 120, 5)))
        self.fc = nn.ModuleDict(dict(f6=nn.Linear(120, 84), f7=nn.Linear(84, 10)))
        self.load_state_dict(load_file(path))

    def forward(self, x):
        x = F.interpolate(x, (32, 32), mode="bilinear")
        for name in ("c1", "c3"):
            x = F.max_pool2d(F.relu(self.convnet[name](x)), 2)
        x = F.relu(self.convnet["c5"](x)).flatten(1)
        return self.fc["f7"](F.relu(self.fc["f6"](x)))


def centres(clips):
    """Centre of mass of what is bright in each frame, as column and row; NaN if nothing is."""
    bright = (clips[:, :, 0].double() - FLOOR).clamp_min(0)
    along = torch.arange(CANVAS, dtype=torch.double)
    sums = torch.stack([bright.sum(2) @ along, bright.sum(3) @ along], -1)
    return sums / bright.sum((2, 3))[..., None]


@torch.no_grad()
def read(lenet, clips):
    """The class in each frame, `[batch, frames]`, read in a square around what is bright."""
    middle = torch.nan_to_num(centres(clips), nan=(CANVAS - 1) / 2).flatten(0, 1)
    corner = (middle - (DIGIT - 1) / 2 + 0.5).floor().long() + DIGIT
    columns, rows = (corner[:, None] + torch.arange(DIGIT)[:, None]).unbind(2)
    wide = F.pad(clips.flatten(0, 2), [DIGIT] * 4)
    squares = wide[torch.arange(len(wide))[:, None, None], rows[:, :, None], columns[:, None]]
    found = torch.cat([lenet(part).argmax(1) for part in squares[:, None].split(256)])
    return found.view(clips.shape[:2])


def deviation(track):
    """Root of the mean squared deviation of the speed along each axis from its median, between
    bounces; of all steps from their mean if half of them or more are bounces."""
    steps = np.diff(track, axis=0)
    bounces = (steps[:-1] * steps[1:] < 0) & (np.abs(steps[:-1]) + np.abs(steps[1:]) > 0.5)
    if 2 * bounces.sum() >= len(track):
        return np.sqrt(np.mean((steps - steps.mean(0)) ** 2))
    kept = np.ones_like(steps, bool)
    kept[[0, -1]] = False
    kept[:-1] &= ~bounces
    kept[1:] &= ~bounces
    speeds = [np.abs(steps[kept[:, axis], axis]) for axis in (0, 1)]
    apart = np.concatenate([s - np.median(s) for s in speeds if len(s)] or [np.zeros(1)])
    return np.sqrt(np.mean(apart ** 2))


def figures(clips, classes, classifier):
    """Shares of frames that are read as the class, and of clips that are read as one class;
    differences of neighbouring frames; the share of clips that show something in every frame, and
    how far their speeds deviate."""
    tracks = centres(clips).numpy()
    seen = np.isfinite(tracks).all((1, 2))
    off = [deviation(track) for track in tracks[seen]]
    found = dict(flicker=clips.diff(dim=1).abs().mean().item(), seen=float(seen.mean()),
                 deviation=float(np.mean(off)) if off else None)
    if not classifier:
        return found
    classes_read = read(LeNet(classifier), clips)
    right = (classes_read == classes[:, None]).float().mean().item()
    constant = (classes_read == classes_read[:, :1]).all(1).float().mean().item()
    return dict(right=right, constant=constant, **found)
