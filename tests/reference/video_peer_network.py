"""The network of `video_peers.py`, and samples from it."""
import torch, torch.nn as nn
from diffusers import DPMSolverMultistepScheduler, MotionAdapter, UNet2DModel

CHANNELS, FRAMES, SIDE, NULL = (32, 64, 64), 16, 32, 10


def image_network():
    return UNet2DModel(
        sample_size=SIDE, in_channels=1, out_channels=1, layers_per_block=1,
        block_out_channels=CHANNELS, norm_num_groups=8, num_class_embeds=NULL + 1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"))


class Moving(nn.Module):
    """A layer of the U-net and a motion module, which passes maps unchanged at first."""

    def __init__(self, layer, motion):
        super().__init__()
        self.layer, self.motion = layer, motion
        nn.init.zeros_(motion.proj_out.weight)
        nn.init.zeros_(motion.proj_out.bias)

    def forward(self, x, *args, **kwargs):
        return self.motion(self.layer(x, *args, **kwargs), num_frames=FRAMES)


def add_motion(unet):
    """Puts motion modules after all layers. A layer ends with its attention, if it has one."""
    motion = MotionAdapter(
        block_out_channels=CHANNELS, motion_layers_per_block=1, motion_num_attention_heads=8,
        motion_norm_num_groups=8, motion_max_seq_length=FRAMES)
    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    added = [*motion.down_blocks, motion.mid_block, *motion.up_blocks]
    for block, modules in zip(blocks, (of.motion_modules for of in added)):
        layers = getattr(block, "attentions", block.resnets)
        assert len(layers) == len(modules)
        for index, module in enumerate(modules):
            layers[index] = Moving(layers[index], module)


class Video(nn.Module):
    """A U-net, with or without motion modules, over the frames of clips."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, x, times, classes):
        """`[batch, frames, 1, 32, 32]`, with a time and a class for each clip."""
        each = lambda values: values.repeat_interleave(x.shape[1])
        return self.unet(x.flatten(0, 1), each(times), each(classes)).sample.view_as(x)


@torch.no_grad()
def draw(network, classes, steps=20, guidance=2.0, batch=16):
    """Clips of classes, in [0, 1]."""
    clips = []
    for part in classes.split(batch):
        plan = DPMSolverMultistepScheduler(
            prediction_type="v_prediction", use_karras_sigmas=True, thresholding=True)
        plan.set_timesteps(steps)
        x = torch.randn(len(part), FRAMES, 1, SIDE, SIDE)
        both = torch.cat([part, torch.full_like(part, NULL)])
        for at in plan.timesteps:
            told, untold = network(torch.cat([x, x]), at.expand(len(both)), both).chunk(2)
            x = plan.step(untold + guidance * (told - untold), at, x).prev_sample
        clips.append((x.clamp(-1, 1) + 1) / 2)
    return torch.cat(clips)
