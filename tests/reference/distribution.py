"""Distances between sets of features by public implementations, for `tests/eval_distribution.rs`.

    pip install torch torch-fidelity pytorch-fid torchmetrics prdc==0.2 scikit-learn safetensors
    python distribution.py ../fixtures/eval/distribution

torch-fidelity computes KID, the Inception Score, precision and recall and a Fréchet distance,
pytorch-fid the latter once more, prdc precision, recall, density and coverage, torchmetrics the KID
of all samples, scikit-learn shrinkage, scipy Wasserstein distances. CMMD and the Vendi score are
not on PyPI or pull in networks: their formulas are written out.
"""
import json, os, sys
import numpy as np, torch
from prdc import compute_prdc
from pytorch_fid.fid_score import calculate_frechet_distance
from safetensors.torch import save_file
from scipy.stats import wasserstein_distance
from sklearn.covariance import OAS
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kernel_mmd, kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.image.kid import poly_mmd


def drawn(n, m, size, subsets, seed):
    """The rows that torch-fidelity draws."""
    rng = np.random.RandomState(seed)
    return np.array([[rng.choice(k, size, replace=False) for k in (n, m)] for _ in range(subsets)])


def cmmd(x, y, sigma=10, scale=1000):
    x, y = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (x, y))
    k = lambda a, b: np.exp(-(((a[:, None] - b[None]) ** 2).sum(-1)) / (2 * sigma**2)).mean()
    return scale * (k(x, x) + k(y, y) - 2 * k(x, y))


def vendi(x):
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    w = np.linalg.eigvalsh(x @ x.T / len(x)); w = w[w > 0]
    return np.exp(-(w * np.log(w)).sum())


def sliced(x, y, directions, order):
    """Quantiles on a grid that holds the steps of both sets."""
    grid = np.lcm(len(x), len(y)); steps = lambda v: np.repeat(np.sort(v), grid // len(v))
    if order == 1: return np.mean([wasserstein_distance(x @ t, y @ t) for t in directions])
    return np.mean([(np.abs(steps(x @ t) - steps(y @ t)) ** order).mean() for t in directions]) ** (1 / order)


def manifolds(real, fake):
    """Precision and recall by torch-fidelity (whose first set is the generated one), and all four by prdc."""
    balls = {f"torch_fidelity_{k}": prc_features_to_metric(torch.tensor(fake), torch.tensor(real), prc_neighborhood=k, prc_batch_size=50,
                                                           save_cpu_ram=False, verbose=False) for k in (3, 5)}
    return balls | {f"prdc_{k}": {n: float(v) for n, v in compute_prdc(real, fake, nearest_k=k).items()} for k in (3, 5)}


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(12, 12)); f32 = lambda m: m.astype(np.float32)
    a = f32(np.maximum(rng.normal(size=(120, 12)) @ mix + 1, 0))
    b = f32(np.maximum(rng.normal(size=(90, 12)) @ (mix + 0.3 * rng.normal(size=(12, 12))) + 2, 0))
    few = a[:9]; logits = f32(3 * rng.normal(size=(103, 7)))
    directions = rng.normal(size=(20, 12)); directions = f32(directions / np.linalg.norm(directions, axis=1, keepdims=True))
    # In 64 bits, as ours; torch-fidelity itself would stay in the 32 of its features.
    x, y = a.astype(np.float64), b.astype(np.float64); t = directions.astype(np.float64)
    tx, ty = torch.tensor(x), torch.tensor(y)
    kid = kid_features_to_metric(tx, ty, kid_subsets=6, kid_subset_size=50, kid_kernel="poly", kid_kernel_poly_degree=3,
                                 kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1, rng_seed=2020, verbose=False)
    isc = {s: isc_features_to_metric(torch.tensor(logits), s, shuffle=False) for s in (1, 10)}
    sx, sy, sf = (fid_features_to_statistics(torch.tensor(m)) for m in (x, y, few.astype(np.float64)))
    oas = OAS().fit(few.astype(np.float64))
    numbers = dict(
        kid_mean=kid["kernel_inception_distance_mean"], kid_std=kid["kernel_inception_distance_std"],
        kid_torchmetrics=poly_mmd(tx[:90], ty).item(),
        gaussian_mmd=kernel_mmd(x[:90], y, kid_kernel="rbf", kid_kernel_rbf_sigma=4.0),
        inception_score={str(s): [v["inception_score_mean"], v["inception_score_std"]] for s, v in isc.items()},
        fid_torch_fidelity=fid_statistics_to_metric(sx, sy, False)["frechet_inception_distance"],
        fid_pytorch_fid=calculate_frechet_distance(sx["mu"], sx["sigma"], sy["mu"], sy["sigma"]),
        oas_shrinkage=oas.shrinkage_,
        # scikit-learn divides by n, the covariance of the distance by n − 1.
        fid_shrunk=calculate_frechet_distance(sf["mu"], oas.covariance_ * 9 / 8, sy["mu"], sy["sigma"]),
        cmmd=cmmd(x, y), vendi=vendi(x), vendi_few=vendi(few.astype(np.float64)),
        sliced_1=sliced(x, y, t, 1), sliced_2=sliced(x, y, t, 2), wasserstein_1=wasserstein_distance(x[:, 0], y[:, 0]),
        # The repeated rows of a set that has collapsed: distances of 0.
        prdc=dict(ab=manifolds(x, y), ba=manifolds(y, x), collapsed=manifolds(x, x[np.arange(90) % 20])),
        pairwise=float(torch.pdist(tx).mean()))
    os.makedirs(sys.argv[1], exist_ok=True)
    subsets = drawn(len(a), len(b), 50, 6, 2020).astype(np.int32)
    tensors = dict(a=a, b=b, logits=logits, directions=directions, subsets=subsets)
    save_file({k: torch.tensor(v) for k, v in tensors.items()}, f"{sys.argv[1]}/cases.safetensors",
              metadata=dict(json=json.dumps(numbers, default=float)))
    # As `pytorch-fid --save-stats` does.
    np.savez_compressed(f"{sys.argv[1]}/statistics.npz", mu=sx["mu"], sigma=sx["sigma"])
    print(json.dumps(numbers, indent=1, default=float))
