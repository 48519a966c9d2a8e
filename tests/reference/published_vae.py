"""-ELBO of the published MLP VAE over MNIST's test set in PyTorch, for `tests/mnist.rs`.

    pip install torch numpy safetensors
    python published_vae.py DATA      # the directory in AIGC_DATA

Printed with torch 2.9.0: kl 25.75474, reconstruction 77.434 (mean of five draws, standard deviation
0.044).
"""
import gzip, sys
import numpy as np, torch, torch.nn.functional as F
from safetensors.torch import load_file

torch.manual_seed(0)
w = load_file(f"{sys.argv[1]}/mnist-models/vae_z20_csinva.safetensors")
raw = gzip.open(f"{sys.argv[1]}/mnist/t10k-images-idx3-ubyte.gz").read()
x = torch.from_numpy(np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 784).copy()).float() / 255
layer = lambda name, v: F.linear(v, w[name + ".weight"], w[name + ".bias"])
h = F.relu(layer("fc1", x)); mean, log_variance = layer("fc21", h), layer("fc22", h)
kl = (0.5 * (mean ** 2 + log_variance.exp() - log_variance - 1).sum(1)).mean().item()
draws = []
for _ in range(5):
    z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    y = layer("fc4", F.relu(layer("fc3", z)))
    draws.append(F.binary_cross_entropy_with_logits(y, x, reduction="sum").item() / len(x))
print(f"kl {kl:.5f}, reconstruction {np.mean(draws):.3f} (standard deviation {np.std(draws):.3f})")
