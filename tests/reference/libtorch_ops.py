"""Generates crates/aigc-core/assets/libtorch_ops.pt, a TorchScript module of operations of LibTorch
that its C bindings lack.

    pip install torch==2.9.0
    python tests/reference/libtorch_ops.py
"""
from pathlib import Path
from typing import List, Tuple

import torch
from torch import Tensor


class Operations(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def conv_weight_grad(self, dy: Tensor, x: Tensor, weight: Tensor, stride: List[int], padding: List[int],
                         dilation: List[int], transposed: bool, padding_out: List[int], groups: int) -> Tensor:
        mask = [False, True, False]
        return torch.ops.aten.convolution_backward(
            dy, x, weight, None, stride, padding, dilation, transposed, padding_out, groups, mask)[1]

    @torch.jit.export
    def conv_input_grad(self, dy: Tensor, x: Tensor, weight: Tensor, stride: List[int], padding: List[int],
                        dilation: List[int], transposed: bool, padding_out: List[int], groups: int) -> Tensor:
        mask = [True, False, False]
        return torch.ops.aten.convolution_backward(
            dy, x, weight, None, stride, padding, dilation, transposed, padding_out, groups, mask)[0]

    @torch.jit.export
    def batch_norm(self, x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Tuple[Tensor, Tensor, Tensor]:
        return torch.ops.aten.native_batch_norm(x, gamma, beta, None, None, True, 0.0, epsilon)

    @torch.jit.export
    def batch_norm_grads(self, dy: Tensor, x: Tensor, gamma: Tensor, mean: Tensor, deviation: Tensor,
                         epsilon: float) -> Tuple[Tensor, Tensor, Tensor]:
        return torch.ops.aten.native_batch_norm_backward(
            dy, x, gamma, None, None, mean, deviation, True, epsilon, [True, True, True])

    # The tensors come in lists: writes to a list created here would be removed as dead code.
    @torch.jit.export
    def adam(self, params: List[Tensor], grads: List[Tensor], moments_1: List[Tensor], moments_2: List[Tensor],
             times: List[Tensor], rate: float, beta_1: float, beta_2: float, decay: float, epsilon: float,
             decoupled: bool) -> Tensor:
        none: List[Tensor] = []
        if decoupled:
            torch.ops.aten._fused_adamw_(params, grads, moments_1, moments_2, none, times, lr=rate, beta1=beta_1,
                                         beta2=beta_2, weight_decay=decay, eps=epsilon, amsgrad=False, maximize=False)
        else:
            torch.ops.aten._fused_adam_(params, grads, moments_1, moments_2, none, times, lr=rate, beta1=beta_1,
                                        beta2=beta_2, weight_decay=decay, eps=epsilon, amsgrad=False, maximize=False)
        return params[0]


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    torch.jit.script(Operations()).save(str(root / "crates/aigc-core/assets/libtorch_ops.pt"))
