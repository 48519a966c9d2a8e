"""Sums over images that Pillow resizes, for the test of `aigc_core::data::resample`.

    pip install pillow numpy
    python resample.py

Prints, for each kernel and pair of sizes, `(kernel, channels, [height, width], [height, width],
sum)`: the sum of all bytes, each times its place from 1 on, modulo 2^32.
"""
import numpy as np
from PIL import Image

SIZES = [((28, 28), (28, 40)), ((20, 17), (32, 27)), ((50, 77), (28, 43)), ((101, 40), (70, 28)), ((9, 200), (31, 5)), ((64, 64), (8, 8)), ((3, 2), (1, 1))]
for kernel in ["Nearest", "Box", "Bilinear", "Hamming", "Bicubic", "Lanczos"]:
    for channels in [1, 3]:
        for (h, w), (nh, nw) in SIZES:
            y, x, c = np.meshgrid(np.arange(h), np.arange(w), np.arange(channels), indexing="ij")
            pixels = ((37 * y + 101 * x + 59 * c + x * y % 7 * 13 + x * x) % 256).astype(np.uint8)
            image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
            out = np.asarray(image.resize((nw, nh), getattr(Image.Resampling, kernel.upper()))).reshape(-1).astype(np.uint64)
            total = int((out * np.arange(1, len(out) + 1, dtype=np.uint64)).sum() % 2**32)
            print(f"({kernel}, {channels}, [{h}, {w}], [{nh}, {nw}], {total:_}),")
