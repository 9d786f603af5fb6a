"""Neighborhood attention for PyTorch, on the CPU: the operator, and NATTEN 0.14's module of it.

    from nat_infer.torch import NeighborhoodAttention2D, na2d

Both are differentiable. Inputs are read where they are, on `torch.get_num_threads()` threads and without
Python's lock. Code that imports NATTEN, as Transformers' DiNAT does, runs after
`nat_infer.torch.compat.install()`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nat_infer.torch._autograd import Attention2D, mix2d, on_the_cpu, scores2d

__all__ = ["NeighborhoodAttention2D", "na2d"]


def na2d(qkv: Tensor, rpb: Tensor | None, heads: int, kernel: int, dilation: int = 1) -> Tensor:
    """Neighborhood attention: each pixel attends to the kernel x kernel pixels around it, dilation apart.

    Args:
        qkv: [B, H, W, 3·C] of queries, keys and values, each [heads, C / heads], as one linear layer writes
            them. Queries are unscaled: scores are divided by the root of C / heads here. H and W are at least
            kernel·dilation.
        rpb: the relative position bias, [heads, 2·kernel−1, 2·kernel−1], or None.
        heads: heads that the channels are divided into.
        kernel: pixels of a window on each axis. It is odd, or the map is just as large.
        dilation: the distance between the pixels of a window.

    Returns:
        [B, H, W, C], of `qkv`'s type. f16 and bf16 are computed in f32; f64, for checks, by a plain loop.

    Raises:
        ValueError: for sizes that do not fit together.
        TypeError: for what is no tensor of floats.
        RuntimeError: for tensors that are not on the CPU.
    """
    on_the_cpu(qkv=qkv, rpb=rpb)
    return Attention2D.apply(qkv, rpb, heads, kernel, dilation)


class NeighborhoodAttention2D(nn.Module):
    """A layer of neighborhood attention with the parameters of NATTEN 0.14's: `qkv`, `rpb` and `proj`.

    [B, H, W, dim] to the same. A map that is smaller than a window of kernel_size·dilation is padded with
    zeros on the right and at the bottom first, as the published weights were trained, and cut back afterwards.

    Args:
        dim: channels.
        num_heads: heads that these are divided into.
        kernel_size: pixels of a window on each axis, an odd number above 1.
        dilation: the distance between the pixels of a window; None is 1.
        bias: whether there is a relative position bias.
        qkv_bias: whether the layer that makes queries, keys and values has a bias.
        qk_scale: what scores are multiplied with; None, or 0, is (dim / num_heads)^−½.
        attn_drop: how many probabilities are dropped in training. With any, the slower halves of the operator
            compute.
        proj_drop: how many results are dropped in training.

    Raises:
        ValueError: for parameters that make no sense.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel_size: int,
        dilation: int | None = 1,
        bias: bool = True,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim < 1 or dim % num_heads != 0:
            raise ValueError(f"{dim} channels cannot be divided into {num_heads} heads")
        if kernel_size < 2 or kernel_size % 2 == 0:
            raise ValueError(f"the kernel size has to be an odd number above 1, got {kernel_size}")
        if dilation is not None and dilation < 1:
            raise ValueError(f"the dilation has to be at least 1, got {dilation}")
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = qk_scale or self.head_dim**-0.5
        self.kernel_size = kernel_size
        self.dilation = dilation or 1
        self.window_size = self.kernel_size * self.dilation

        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        if bias:
            side = 2 * kernel_size - 1
            self.rpb = nn.Parameter(torch.zeros(num_heads, side, side))
            nn.init.trunc_normal_(self.rpb, std=0.02)
        else:
            self.register_parameter("rpb", None)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, H, W, dim] to [B, H, W, dim]."""
        height, width = x.shape[1:3]
        below, beside = max(0, self.window_size - height), max(0, self.window_size - width)
        if below or beside:
            x = nn.functional.pad(x, (0, 0, 0, beside, 0, below))
        qkv = self.qkv(x)
        if self.training and self.attn_drop.p > 0:
            x = self._dropped(qkv)
        else:
            x = na2d(self._rescaled(qkv), self.rpb, self.num_heads, self.kernel_size, self.dilation)
        return self.proj_drop(self.proj(x[:, :height, :width]))

    def _rescaled(self, qkv: Tensor) -> Tensor:
        """qkv for the operator's own scale."""
        factor = self.scale * self.head_dim**0.5
        if abs(factor - 1) < 1e-12:
            return qkv
        query, others = qkv.tensor_split((qkv.shape[-1] // 3,), dim=-1)
        return torch.cat((query * factor, others), dim=-1)

    def _dropped(self, qkv: Tensor) -> Tensor:
        """Attention with some of the probabilities dropped: qkv [B, H, W, 3·dim] to [B, H, W, dim]."""
        batch, height, width, _ = qkv.shape
        heads = qkv.reshape(batch, height, width, 3, self.num_heads, self.head_dim)
        query, key, value = heads.permute(3, 0, 4, 1, 2, 5)
        scores = scores2d(query * self.scale, key, self.rpb, self.kernel_size, self.dilation)
        out = mix2d(self.attn_drop(scores.softmax(-1)), value, self.kernel_size, self.dilation)
        return out.permute(0, 2, 3, 1, 4).reshape(batch, height, width, -1)

    def extra_repr(self) -> str:
        return (
            f"head_dim={self.head_dim}, num_heads={self.num_heads}, kernel_size={self.kernel_size}, "
            f"dilation={self.dilation}, rel_pos_bias={self.rpb is not None}"
        )
