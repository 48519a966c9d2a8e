"""MAUVE by mauve-text, and the loss-threshold attack by scikit-learn, for
`tests/eval_originality_text.rs`.

    pip install mauve-text==0.4.0 scikit-learn numpy
    python mauve_scores.py ../fixtures/eval/mauve

The clusters of the features are so far apart that every good k-means finds them. Features are
stored as integers, of which each one is a hundredth.
"""
import json, os, sys
import numpy as np
from mauve.compute_mauve import compute_mauve, get_divergence_curve_for_multinomials, get_fronter_integral
from sklearn.metrics import auc, roc_auc_score, roc_curve


def area(curve):
    x, y = curve.T; i, j = np.argsort(x, kind="stable"), np.argsort(y, kind="stable")
    return 0.5 * (auc(x[i], y[i]) + auc(y[j], x[j]))


def of_counts(p, q, points=25, scaling=5):
    p, q, weights = np.array(p), np.array(q), np.linspace(1e-6, 1 - 1e-6, points); out = dict(p=p.tolist(), q=q.tolist(), points=points, scaling=scaling)
    for name, more in (("", 0), ("_star", 0.5)):
        a, b = (p + more) / (p + more).sum(), (q + more) / (q + more).sum(); curve = get_divergence_curve_for_multinomials(a, b, weights, scaling)
        out["mauve" + name] = area(curve); out["frontier_integral" + name] = get_fronter_integral(a, b)
        if not more: out["divergence_curve"] = curve.tolist()
    return out


def clusters(rng, counts, centres):
    return np.concatenate([c + 0.02 * rng.normal(size=(n, centres.shape[1])) for n, c in zip(counts, centres)])


def of_features(rng, p_counts, q_counts):
    centres = np.linalg.qr(rng.normal(size=(16, 16)))[0][: len(p_counts)] * rng.uniform(1, 3, size=(len(p_counts), 1))
    p, q = (np.round(100 * clusters(rng, n, centres)).astype(int) for n in (p_counts, q_counts))
    found = compute_mauve((p / 100).astype(np.float32), (q / 100).astype(np.float32), num_buckets=len(p_counts), kmeans_num_redo=100)
    sizes = lambda h, n: sorted(np.round(h * sum(n)).astype(int).tolist())
    assert sizes(found.p_hist, p_counts) == sorted(p_counts) and sizes(found.q_hist, q_counts) == sorted(q_counts), "k-means missed a cluster"
    scores = {k: float(getattr(found, k)) for k in ("mauve", "frontier_integral", "mauve_star", "frontier_integral_star", "num_buckets")}
    return dict(width=16, p=p.ravel().tolist(), q=q.ravel().tolist(), p_counts=p_counts, q_counts=q_counts, **scores)


def of_losses(train, held_out):
    y, score = np.r_[np.ones(len(train)), np.zeros(len(held_out))], -np.r_[train, held_out]; fpr, tpr, _ = roc_curve(y, score, drop_intermediate=False)
    return dict(train=train.tolist(), held_out=held_out.tolist(), auc=roc_auc_score(y, score), tpr=float(tpr[fpr <= 0.01][-1]))


if __name__ == "__main__":
    rng = np.random.default_rng(0); os.makedirs(sys.argv[1], exist_ok=True)
    counts = [
        of_counts([10, 20, 30, 40], [25, 25, 25, 25]), of_counts([5, 0, 7, 3], [0, 9, 2, 4]), of_counts([3, 4, 0, 0], [0, 0, 5, 1]),
        of_counts(rng.integers(0, 40, 50).tolist(), rng.integers(0, 60, 50).tolist()), of_counts([1, 99], [60, 40], points=11, scaling=2),
    ]
    features = [of_features(rng, [12, 8, 20, 5, 15, 10], [20, 9, 11, 17, 3, 10]), of_features(rng, [30, 0, 10, 20, 6], [0, 25, 5, 18, 2])]
    losses = [of_losses(np.round(rng.gamma(2, 1, 150), 2), np.round(rng.gamma(2.5, 1.2, 220), 2)), of_losses(np.round(rng.normal(1, 1, 40), 1), np.round(rng.normal(3, 1, 30), 1))]
    json.dump(dict(counts=counts, features=features, losses=losses), open(f"{sys.argv[1]}/scores.json", "w"), separators=(",", ":"))
