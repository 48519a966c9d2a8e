"""Diffusion of log-mel spectra, for `mel` and `effects` of `sound_peers.py`."""
import math
import torch, torch.nn as nn, torch.nn.functional as F
from sound_peer_train import Average, order, train


class Images:
    """Log-mel spectra of `frames` frames as images: the floor is -1, the logarithm `high` is 1."""

    def __init__(self, spectrum, frames, high):
        self.spectrum, self.low, self.high = spectrum, math.log(1e-5), high
        self.shape, self.length = (len(spectrum.bank), frames), frames * spectrum.hop

    def of(self, waves, at_once=50):
        """`[batch, 1, mels, frames]` of `[batch, time]`, with silence at the end."""
        waves = F.pad(waves, (0, self.length - waves.shape[1]))
        log_mel = torch.cat([self.spectrum(part) for part in waves.split(at_once)])
        return 2 * ((log_mel - self.low) / (self.high - self.low)).clamp(0, 1)[:, None] - 1

    def waves(self, images, at_once=50):
        """`[batch, time]`, by Griffin-Lim."""
        log_mel = self.low + (images[:, 0].clamp(-1, 1) + 1) / 2 * (self.high - self.low)
        return torch.cat([self.spectrum.griffin_lim(part) for part in log_mel.split(at_once)])


def learn(images, labels, widths, classes, steps, batch, warmup, decay):
    """Trains a U-net that is told the class, or nothing for a tenth of the images. Milliseconds a
    step, and the average of its weights."""
    from diffusers import DDPMScheduler, UNet2DModel
    network = UNet2DModel(
        sample_size=tuple(images.shape[2:]), in_channels=1, out_channels=1, layers_per_block=1,
        block_out_channels=widths, norm_num_groups=8, num_class_embeds=classes + 1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"))
    noising, average = DDPMScheduler(), Average(network, decay)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, (0.9, 0.99))
    batches = order(len(images), batch)

    def step(_):
        chosen = next(batches)
        x = images[chosen]
        told = torch.where(torch.rand(batch) < 0.1, torch.tensor(classes), labels[chosen])
        noise, times = torch.randn_like(x), torch.randint(1000, (batch,))
        noisy = noising.add_noise(x, noise, times)
        loss = F.mse_loss(network(noisy, times, told).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.follow(network)
        return loss.item()

    ms = train(step, steps, [optimizer], warmup)
    return ms, average.model.eval()


@torch.no_grad()
def draw(network, labels, at_once=50):
    """Images of classes, in 20 steps of DPM-Solver++ with a guidance of 2."""
    from diffusers import DPMSolverMultistepScheduler
    drawn, nothing = [], network.config.num_class_embeds - 1
    for part in labels.split(at_once):
        plan = DPMSolverMultistepScheduler(use_karras_sigmas=True, thresholding=True)
        plan.set_timesteps(20)
        x = torch.randn(len(part), 1, *network.config.sample_size)
        both = torch.cat([part, torch.full_like(part, nothing)])
        for at in plan.timesteps:
            told, untold = network(torch.cat([x, x]), at, both).sample.chunk(2)
            x = plan.step(untold + 2.0 * (told - untold), at, x).prev_sample
        drawn.append(x)
    return torch.cat(drawn)
