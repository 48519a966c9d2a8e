"""LPIPS by `lpips`, MS-SSIM by torchmetrics and perceptual path length by torch-fidelity, for
`tests/eval_perceptual/`.

    pip install torch torchvision lpips torchmetrics torch-fidelity
    python perceptual.py ../fixtures/eval/perceptual

Weights of the backbones and images come from a formula that the test has too; the weights of
channels are the published ones of the package `lpips`, which are copied (BSD 2-clause licence).
"""
import json, os, shutil, sys
import lpips, numpy as np, torch, torch_fidelity
from torch_fidelity.metric_ppl import calculate_ppl
from torch_fidelity.sample_similarity_base import SampleSimilarityBase
from torch_fidelity.utils import sample_random
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim

PERIOD = 4093
# torch-fidelity 0.4 calls `percentile` with a name that NumPy 2.4 no longer has.
percentile = np.percentile
np.percentile = lambda a, q, interpolation="linear", **rest: percentile(a, q, method=interpolation, **rest)


def unit(name, n):
    """`n` numbers in [-1, 1): a hash of `name` and index, repeated."""
    seed = 2166136261
    for byte in name.encode(): seed = (seed ^ byte) * 16777619 % 2**32
    with np.errstate(over="ignore"):
        x = np.uint32(seed) + np.arange(PERIOD, dtype=np.uint32) * np.uint32(0x9E3779B9)
        x ^= x >> np.uint32(16); x *= np.uint32(0x85EBCA6B); x ^= x >> np.uint32(13); x *= np.uint32(0xC2B2AE35); x ^= x >> np.uint32(16)
    return np.resize(x.astype(np.float64) / 2.0**31 - 1.0, n)


def weight(name, shape):
    scale = 0.1 if name.endswith("bias") else (6.0 / np.prod(shape[1:])) ** 0.5
    return torch.tensor((scale * unit(name, int(np.prod(shape)))).astype(np.float32).reshape(shape))


def images(shape):
    n = int(np.prod(shape)); x = 0.5 + 0.5 * unit("x", n); y = 0.7 * x + 0.3 * (0.5 + 0.5 * unit("y", n))
    return [torch.tensor(v.astype(np.float32).reshape(shape)) for v in (x, y)]


def lpips_case(net, shape):
    model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    for name, p in model.net.named_parameters(): p.data = weight("features." + name.split(".", 1)[1], tuple(p.shape))
    x, y = images(shape); x.requires_grad_(True)
    d = model(x, y, normalize=True); d.sum().backward()
    g = x.grad.double().flatten()
    return dict(net=net, shape=shape, distances=d.flatten().tolist(), gradient_norm=g.norm().item(), gradient_with_y=(g * y.double().flatten()).sum().item())


def ms_ssim_case(shape, betas, normalize, negative=False):
    """`negative`: an image against its negative, whose terms are below 0. They have no real power: the values are null."""
    x, y = images(shape)
    if negative: y = 1 - x
    value = ms_ssim(y.double(), x.double(), data_range=1.0, reduction="none", betas=tuple(betas), normalize=normalize)
    return dict(shape=shape, betas=betas, normalize=normalize or "none", negative=negative, values=[None if v != v else v for v in value.tolist()])


class Generator(torch.nn.Module):
    def __init__(self):
        super().__init__(); self.w = torch.tensor(unit("generator", 4 * 108).astype(np.float32).reshape(4, 108))

    def forward(self, z):
        p = z @ self.w; return (0.5 + 0.1 * p + 0.01 * p * p).reshape(-1, 3, 6, 6)


class Squares(SampleSimilarityBase):
    def __init__(self, name, **kwargs): super().__init__(name)

    def forward(self, a, b): return ((a - b) ** 2).flatten(1).mean(1)


def path_case(mode, z_type, n=70, seed=3):
    rng = np.random.RandomState(seed); starts, ends = (sample_random(rng, (n, 4), z_type) for _ in "ab")
    model = torch_fidelity.GenerativeModelModuleWrapper(Generator(), 4, z_type, 0)
    out = calculate_ppl(1, input1=model, input1_model_num_samples=n, batch_size=16, cuda=False, verbose=False, rng_seed=seed,
        ppl_epsilon=0.05, ppl_z_interp_mode=mode, ppl_reduction="none", ppl_sample_similarity="squares",
        ppl_discard_percentile_lower=5, ppl_discard_percentile_higher=90)
    return dict(mode=mode, starts=starts.flatten().tolist(), ends=ends.flatten().tolist(), mean=out["perceptual_path_length_mean"],
        std=out["perceptual_path_length_std"], raw=[float(v) for v in out["perceptual_path_length_raw"]])


if __name__ == "__main__":
    torch.manual_seed(0); os.makedirs(sys.argv[1], exist_ok=True)
    for net in ("vgg", "alex", "squeeze"): shutil.copy(f"{lpips.__path__[0]}/weights/v0.1/{net}.pth", f"{sys.argv[1]}/{net}.pth")
    torch_fidelity.register_sample_similarity("squares", Squares)
    paper = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    cases = dict(
        lpips=[lpips_case("vgg", [2, 3, 40, 36]), lpips_case("alex", [2, 3, 64, 49]), lpips_case("squeeze", [2, 3, 63, 50]), lpips_case("squeeze", [1, 3, 17, 18])],
        ms_ssim=[ms_ssim_case([2, 1, 181, 177], paper, n) for n in ("relu", "simple", None)] + [ms_ssim_case([2, 3, 47, 60], [0.2, 0.3, 0.5], "relu"), ms_ssim_case([1, 1, 12, 14], [0.4, 0.6], None)]
            + [ms_ssim_case([2, 1, 24, 30], [0.4, 0.6], n, negative=True) for n in ("relu", "simple", None)],
        path_length=[path_case("lerp", "normal"), path_case("slerp_any", "normal"), path_case("slerp_unit", "unit")])
    json.dump(cases, open(f"{sys.argv[1]}/perceptual.json", "w"), indent=1)
