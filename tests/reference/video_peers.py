"""The networks of `reproduce_video` in PyTorch: milliseconds a step, and quality after as many
steps, beside ours in docs/results.md.

    pip install torch numpy pillow safetensors transformers diffusers
    python video_peers.py train --data MNIST --classifier LENET [--steps 1500]
    python video_peers.py image --data MNIST --classifier LENET [--steps 2400] [--save DIR]
    python video_peers.py motion --data MNIST --classifier LENET --image-model DIR [--steps 1000]

`train` trains a video network as a whole, `image` its U-net on single frames, `motion` motion
modules for such a U-net, which is frozen. MNIST is a directory with MNIST's IDX files, LENET the
`lenet5_csinva.safetensors` that `reproduce_video evaluate --classifier` takes; without it, no
digits are read. DIR has a UNet2DModel: what `image --save` wrote, or the `pipeline/unet` of a run
of `reproduce_video image`, so that both sides set the same model in motion. Sizes, batches, losses,
optimizer, schedule and average of weights are ours; the order of the data and the initial weights
are not. U-net and motion modules are those of diffusers.
Prints one JSON line; times are of training steps alone, medians, and of samples per clip.
`right` is the share of frames read as the class asked for, `constant` that of clips read as one
class in all frames, `flicker_ratio` the flicker over that of held-out clips, whose figures are in
`data`. Clips of `image` are frames drawn one by one. The number of clips is set by --clips; of 0,
nothing is measured.
"""
import argparse, json, time
import torch, torch.nn as nn, torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from sound_peer_train import Average, train
from video_peer_clips import digits, figures, moving
from video_peer_network import FRAMES, NULL, Video, add_motion, draw, image_network

P = argparse.ArgumentParser()
P.add_argument("what", choices=["train", "image", "motion"])
P.add_argument("--data", required=True)
P.add_argument("--classifier")
P.add_argument("--image-model")
P.add_argument("--save")
P.add_argument("--steps", type=int)
P.add_argument("--batch", type=int)
P.add_argument("--clips", type=int, default=200)
P.add_argument("--seed", type=int, default=0)
P.add_argument("--threads", type=int, default=2)
A = P.parse_args()
if (A.what == "motion") != bool(A.image_model):
    P.error("--image-model is needed by `motion`, and by nothing else")
if A.save and A.what != "image":
    P.error("--save is of `image`")
torch.set_num_threads(A.threads)
torch.manual_seed(A.seed)

# Steps, samples in a batch, frames of a sample.
steps, batch, frames = dict(
    train=(1500, 8, FRAMES), image=(2400, 64, 1), motion=(1000, 8, FRAMES))[A.what]
steps, batch = A.steps or steps, A.batch or batch

if A.what == "motion":
    unet = UNet2DModel.from_pretrained(A.image_model).requires_grad_(False)
else:
    unet = image_network()
if A.what != "image":
    add_motion(unet)
network = Video(unet)
weights = [weight for weight in network.parameters() if weight.requires_grad]
optimizer, average = torch.optim.Adam(weights, 1e-3, (0.9, 0.99)), Average(network, 0.998)
images, noising = digits(A.data, False), DDPMScheduler()


def step(_):
    x, classes = moving(images, batch, frames)
    x = 2 * x - 1
    classes = torch.where(torch.rand(batch) < 0.1, NULL, classes)
    noise, times = torch.randn_like(x), torch.randint(1000, (batch,))
    noisy, velocity = noising.add_noise(x, noise, times), noising.get_velocity(x, noise, times)
    loss = F.mse_loss(network(noisy, times, classes), velocity)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    average.follow(network)
    return loss.item()


found = dict(ms=train(step, steps, [optimizer], 100))
best = average.model.eval()
if A.save:
    best.unet.save_pretrained(A.save)
if A.clips:
    asked, began = torch.arange(A.clips) % 10, time.perf_counter()
    clips = draw(best, asked)
    found["seconds_per_clip"] = (time.perf_counter() - began) / A.clips
    data = figures(*moving(digits(A.data, True), A.clips, FRAMES), A.classifier)
    ours = figures(clips, asked, A.classifier)
    found.update(ours, flicker_ratio=ours["flicker"] / data["flicker"], data=data)
print(json.dumps(dict(
    what=A.what, steps=steps, batch=batch, seed=A.seed, threads=A.threads,
    weights=sum(weight.numel() for weight in weights), **found)))
