"""CLIP score by torchmetrics, caption retrieval, authenticity and closest records by plain distances
of scikit-learn, score intervals and calibration ranks by scipy, for `tests/eval_relevance.rs` and
`tests/eval_copies.rs`.

    pip install torch torchmetrics transformers scikit-learn scipy numpy
    python relevance.py ../fixtures/eval/relevance

torchmetrics' own update function gets a model whose features are given embeddings.
"""
import json, os, sys
import numpy as np, torch
from scipy.stats import binom, binomtest
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors
from torchmetrics.multimodal import CLIPScore


class Given(torch.nn.Module):
    """A model and processor in one: images are embeddings, texts are row numbers of embeddings."""
    config = None
    def __init__(self, texts): super().__init__(); self.texts = texts
    def get_image_features(self, x): return x.flatten(1)
    def get_text_features(self, ids, mask): return self.texts[ids[:, 0]]
    def process(self, text=None, images=None, **_):
        if images is not None: return dict(pixel_values=torch.stack(images))
        ids = torch.tensor([[int(t)] for t in text]); return dict(input_ids=ids, attention_mask=torch.ones_like(ids))


def clip_score(images, texts):
    model = Given(torch.tensor(texts)); metric = CLIPScore(lambda: (model, model.process)); rows = torch.tensor(images)[:, None, None]
    each = [float(metric(rows[i : i + 1], [str(i)])) for i in range(len(rows))]
    return dict(mean=float(metric.compute()), pairs=each)


def ranks(similarity):
    """1 + the number of other candidates that are at least as near as the own one."""
    return (similarity >= np.diag(similarity)[:, None]).sum(1)


def retrieval(r): return dict(ranks=r.tolist(), median=float(np.median(r)), recall={k: int((r <= k).sum()) for k in (1, 5, 10)})


def nearest(known, queries, k): return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(known).kneighbors(queries)


if __name__ == "__main__":
    rng = np.random.default_rng(0); draw = lambda n, d, scale=1.0: (scale * rng.normal(size=(n, d))).round(3).astype(np.float32)
    images = draw(40, 12) + 0.3; texts = (0.6 * images + draw(40, 12)).round(3); opposite = (-images).round(3)
    images, texts, opposite = (x.astype(np.float32) for x in (images, texts, opposite)); s = cosine_similarity(images.astype(float), texts.astype(float))
    train, held = draw(120, 6), draw(120, 6); samples = np.concatenate([draw(60, 6), (train[:20] + draw(20, 6, 0.05)).round(3)]).astype(np.float32)
    t, h, x = (v.astype(float) for v in (train, held, samples))
    (dt, it), (dh, _), (own, _) = nearest(t, x, 1), nearest(h, x, 1), nearest(t, t, 2)
    out = dict(
        images=images.tolist(), texts=texts.tolist(), clip=clip_score(images, texts), opposite=clip_score(images, opposite),
        image_to_text=retrieval(ranks(s)), text_to_image=retrieval(ranks(s.T)), cosines=np.diag(s).tolist(),
        train=train.tolist(), held_out=held.tolist(), samples=samples.tolist(),
        authentic=int((dt[:, 0] > own[it[:, 0], 1]).sum()), nearer_train=int((dt < dh).sum()),
        train_distance=float(dt.mean()), held_out_distance=float(dh.mean()), nearest=[nearest(t, x[:5], 4)[i].tolist() for i in (0, 1)],
        intervals=[[c, n, *binomtest(c, n).proportion_ci(0.95, "wilson")] for c, n in ((0, 12), (3, 40), (990, 1000), (7, 7))],
        ranks=[[n, r, c, max(k for k in range(n + 1) if binom.cdf(k - 1, n, r) <= 1 - c)] for n, r, c in ((230, 0.01, 0.9), (5000, 0.01, 0.9), (400, 0.05, 0.99), (50, 0.2, 0.5))])
    rounded = lambda v: [rounded(w) for w in v] if isinstance(v, list) else round(v, 4) if isinstance(v, float) else v
    for key in ("images", "texts", "train", "held_out", "samples"): out[key] = rounded(out[key])
    os.makedirs(sys.argv[1], exist_ok=True); json.dump(out, open(f"{sys.argv[1]}/relevance.json", "w"))
