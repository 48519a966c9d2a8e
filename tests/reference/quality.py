"""PSNR and SSIM of two waves by scikit-image, for `aigc_core::eval::{psnr, ssim}`.

    pip install numpy scikit-image
    python quality.py
"""
import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

r, c = np.mgrid[0:16, 0:20].astype(np.float64)
waves = lambda frequency, shift: (0.5 + 0.4 * np.sin(frequency * r + shift) * np.cos(0.7 * frequency * c - shift)).astype(np.float32)
a, b = waves(0.5, 0.0), waves(0.52, 0.1)
print("PSNR", peak_signal_noise_ratio(b, a, data_range=1.0))
print("SSIM", structural_similarity(b.astype(np.float64), a.astype(np.float64), data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False))
