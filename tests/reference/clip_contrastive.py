"""Loss and gradients of CLIP's contrastive loss in PyTorch, for a test of aigc-encoders.

    pip install torch
    python clip_contrastive.py

Prints the constants of `loss_and_gradients_match_pytorch` in `clip/contrastive.rs`: embeddings of
three texts and three images, which are normalised, and the logarithm of the scale.
"""
import torch
import torch.nn.functional as F


def leaf(salt):
    return torch.tensor([(7 * i + 3 * salt) % 11 / 5 - 1 for i in range(12)], dtype=torch.float64).reshape(3, 4).requires_grad_()


text, image, scale = leaf(1), leaf(2), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
logits = scale.exp() * F.normalize(text) @ F.normalize(image).T
target = torch.arange(3)
loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
loss.backward()
show = lambda x: ", ".join(f"{v:.8}" for v in x.flatten().tolist())
print(f"const LOSS: f32 = {show(loss.detach())};")
print(f"const SCALE: f32 = {show(scale.grad)};")
print(f"const TEXT: [f32; 12] = [{show(text.grad)}];")
print(f"const IMAGE: [f32; 12] = [{show(image.grad)}];")
