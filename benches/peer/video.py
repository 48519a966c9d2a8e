"""The workloads of video, in PyTorch and diffusers. `peer.py` runs them."""
import torch, torch.nn.functional as F


def motion_unet_train(batch=4, frames=16, side=32):
    """diffusers' UNet2DModel (1 channel 32x32, blocks 32-64-64, one layer each, attention at 8x8, 8 groups, 10 classes) with AnimateDiff's motion modules of 8 heads after its layers, all trained. Batch of 4 clips of 16 frames, noise-prediction MSE, AdamW 1e-3: one step. 1,823,873 parameters."""
    from diffusers import UNet2DModel
    from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
    unet = UNet2DModel(sample_size=side, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(32, 64, 64), norm_num_groups=8, attention_head_dim=8, num_class_embeds=10,
                       down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"))
    motion = torch.nn.ModuleList()

    def follow(layer, channels):
        """Adds a motion module after a layer. It passes its maps unchanged at first."""
        module = AnimateDiffTransformer3D(8, channels // 8, channels, norm_num_groups=8, positional_embeddings="sinusoidal", num_positional_embeddings=32)
        torch.nn.init.zeros_(module.proj_out.weight); torch.nn.init.zeros_(module.proj_out.bias)
        motion.append(module)
        layer.register_forward_hook(lambda _, inputs, output: module(output, num_frames=frames))

    for block in (*unet.down_blocks, *unet.up_blocks):
        for at, resnet in enumerate(block.resnets):
            # The end of a layer is its attention, if it has one.
            follow(block.attentions[at] if hasattr(block, "attentions") else resnet, resnet.out_channels)
    follow(unet.mid_block.attentions[0], unet.mid_block.resnets[0].out_channels)
    parameters = [*unet.parameters(), *motion.parameters()]
    count = sum(p.numel() for p in parameters)
    assert count == 1_823_873, f"{count} parameters"
    optimizer = torch.optim.AdamW(parameters, 1e-3, fused=True)
    x, noise = torch.randn(2, batch * frames, 1, side, side)
    t, labels = (torch.randint(0, n, (batch,)).repeat_interleave(frames) for n in (1000, 10))
    def step():
        loss = F.mse_loss(unet(x, t, class_labels=labels).sample, noise)
        optimizer.zero_grad(); loss.backward(); optimizer.step(); return loss.item()
    return step


WORKLOADS = dict(motion_unet_train=motion_unet_train)
