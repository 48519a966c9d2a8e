"""The DCGAN of the `dcgan` workload, trained on MNIST in a plain PyTorch loop and evaluated as ours
is by `reproduce_gan images`.

    pip install torch numpy scipy safetensors
    python gan_mnist.py --data MNIST-DIR --classifier LENET.safetensors [--steps 17000] [--seed 0]
                        [--threads 2]

Prints the Fréchet distance between 10,000 samples and the test set in LeNet-5 features, for the
last weights and for weights averaged as ours are (decay 0.999), and the classes that the classifier
predicts.
"""
import argparse, copy, time
import torch, torch.nn as nn, torch.nn.functional as F
from frechet import all_features, frechet, images, lenet

P = argparse.ArgumentParser(); P.add_argument("--data", required=True); P.add_argument("--classifier", required=True)
P.add_argument("--steps", type=int, default=17000); P.add_argument("--seed", type=int, default=0); P.add_argument("--threads", type=int, default=2)
A = P.parse_args(); torch.set_num_threads(A.threads); torch.manual_seed(A.seed)
G = nn.Sequential(nn.ConvTranspose2d(64, 128, 7, 1, 0, bias=False), nn.BatchNorm2d(128), nn.ReLU(), nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.ConvTranspose2d(64, 1, 4, 2, 1), nn.Tanh())
D = nn.Sequential(nn.Conv2d(1, 64, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(64, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.LeakyReLU(0.2), nn.Conv2d(128, 1, 7, 1, 0))
og, od = (torch.optim.Adam(m.parameters(), 2e-4, betas=(0.5, 0.999)) for m in (G, D)); bce = F.binary_cross_entropy_with_logits
X = images(A.data, "train") * 2 - 1; average = copy.deepcopy(G); order, at = torch.randperm(len(X)), 0; began = time.time()
for step in range(A.steps):
    if at + 64 > len(X): order, at = torch.randperm(len(X)), 0
    x = X[order[at:at + 64]]; at += 64
    fake = G(torch.randn(64, 64, 1, 1)); r, f = D(x).flatten(), D(fake.detach()).flatten()
    ld = bce(r, torch.ones_like(r)) + bce(f, torch.zeros_like(f)); od.zero_grad(); ld.backward(); od.step()
    g = D(fake).flatten(); lg = bce(g, torch.ones_like(g)); og.zero_grad(); lg.backward(); og.step()
    decay = min(0.999, (1 + step) / (10 + step))
    with torch.no_grad():
        for a, p in zip(average.parameters(), G.parameters()): a.lerp_(p, 1 - decay)
        for a, b in zip(average.buffers(), G.buffers()): a.copy_(b)
minutes = (time.time() - began) / 60; classifier = lenet(A.classifier)
real, _ = all_features(classifier, images(A.data, "t10k"))
for name, model in (("averaged", average), ("last weights", G)):
    model.eval()
    with torch.no_grad(): y = torch.cat([(model(torch.randn(500, 64, 1, 1)) + 1) / 2 for _ in range(20)])
    features, logits = all_features(classifier, y); counts = logits.argmax(1).bincount(minlength=10)
    print(f"PyTorch seed {A.seed}, {A.steps} steps in {minutes:.1f} minutes, {name}: {frechet(features.numpy(), real.numpy()):.2f}, classes {counts.tolist()}, {0.5 * (counts / 1e4 - 0.1).abs().sum().item():.3f} total variation from uniform", flush=True)
