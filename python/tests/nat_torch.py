"""The networks NAT, DiNAT and DiNAT_s in PyTorch, with the layers and names of the authors' repository, and
neighborhood attention from a definition that needs nothing but gathers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


@functools.lru_cache(None)
def window(length: int, kernel: int, dilation: int) -> tuple[Tensor, Tensor]:
    """The neighbours of each position of an axis, [length, kernel], and the indices of their biases."""
    position = torch.empty(length, kernel, dtype=torch.long)
    bias = torch.empty(length, kernel, dtype=torch.long)
    for i in range(length):
        first, place = i % dilation, i // dilation
        size = (length - first + dilation - 1) // dilation
        start = min(max(place - kernel // 2, 0), size - kernel)
        for t in range(kernel):
            position[i, t] = first + dilation * (start + t)
            bias[i, t] = start + t - place + kernel - 1
    return position, bias


def gathered(x: Tensor, kernel: int, dilation: int) -> Tensor:
    """The neighbours of each pixel of x [B, heads, H, W, dim]: [B, heads, H, W, K², dim]."""
    rows, columns = (window(length, kernel, dilation)[0] for length in x.shape[2:4])
    return x[:, :, rows[:, None, :, None], columns[None, :, None, :]].flatten(4, 5)


def naive_scores(query: Tensor, key: Tensor, rpb: Tensor | None, kernel: int, dilation: int) -> Tensor:
    """query, key [B, heads, H, W, dim] to [B, heads, H, W, K²]."""
    scores = torch.einsum("nhxyd,nhxykd->nhxyk", query, gathered(key, kernel, dilation))
    if rpb is None:
        return scores
    rows, columns = (window(length, kernel, dilation)[1] for length in query.shape[2:4])
    return scores + rpb[:, rows[:, None, :, None], columns[None, :, None, :]].flatten(3, 4)


def naive_mix(attn: Tensor, value: Tensor, kernel: int, dilation: int) -> Tensor:
    """attn [B, heads, H, W, K²], value [B, heads, H, W, dim] to the latter's shape."""
    return torch.einsum("nhxyk,nhxykd->nhxyd", attn, gathered(value, kernel, dilation))


def split(qkv: Tensor, heads: int) -> Tensor:
    """qkv [B, H, W, 3·C] to [3, B, heads, H, W, dim]."""
    return qkv.unflatten(-1, (3, heads, -1)).permute(3, 0, 4, 1, 2, 5)


def naive_na2d(
    qkv: Tensor, rpb: Tensor | None, heads: int, kernel: int, dilation: int = 1, scale: float | None = None
) -> Tensor:
    """qkv [B, H, W, 3·C] to [B, H, W, C]."""
    query, key, value = split(qkv, heads)
    query = query * (scale or query.shape[-1] ** -0.5)
    probabilities = naive_scores(query, key, rpb, kernel, dilation).softmax(-1)
    return naive_mix(probabilities, value, kernel, dilation).permute(0, 2, 3, 1, 4).flatten(3)


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim: int, attn: nn.Module, mlp_ratio: float, layer_scale: float | None) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim), attn, nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.scaled = layer_scale is not None
        if self.scaled:
            self.gamma1 = nn.Parameter(layer_scale * torch.ones(dim))
            self.gamma2 = nn.Parameter(layer_scale * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attn(self.norm1(x))
        x = x + (self.gamma1 * attended if self.scaled else attended)
        hidden = self.mlp(self.norm2(x))
        return x + (self.gamma2 * hidden if self.scaled else hidden)


class Downsample(nn.Module):
    """Half the size by a convolution, as in NAT and DiNAT."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(dim, 2 * dim, 3, 2, 1, bias=False)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Merge(nn.Module):
    """Half the size by merging 2x2 pixels, as in DiNAT_s."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        return self.reduction(self.norm(torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)))


class Level(nn.Module):
    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks, self.downsample = nn.ModuleList(blocks), downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class PatchEmbed(nn.Module):
    """A quarter of the size: by two convolutions, or by patches as in DiNAT_s."""

    def __init__(self, dim: int, patches: bool) -> None:
        super().__init__()
        halves = (nn.Conv2d(3, dim // 2, 3, 2, 1), nn.Conv2d(dim // 2, dim, 3, 2, 1))
        self.proj = nn.Conv2d(3, dim, 4, 4) if patches else nn.Sequential(*halves)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class NAT(nn.Module):
    """A classifier. `attention(dim, heads, kernel, dilation)` makes its layers of neighborhood attention."""

    def __init__(
        self,
        attention: Callable[[int, int, int, int], nn.Module],
        embed_dim: int,
        depths: Sequence[int],
        heads: Sequence[int],
        mlp_ratio: float,
        kernel: int = 7,
        dilations: Sequence[Sequence[int]] | None = None,
        layer_scale: float | None = None,
        classes: int = 1000,
        patches: bool = False,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(embed_dim, patches)
        levels = nn.ModuleList()
        for level, depth in enumerate(depths):
            dim = embed_dim * 2**level
            dilation = dilations[level] if dilations else [1] * depth
            attentions = [attention(dim, heads[level], kernel, dilation[i]) for i in range(depth)]
            blocks = [Block(dim, layer, mlp_ratio, layer_scale) for layer in attentions]
            last = level + 1 == len(depths)
            levels.append(Level(blocks, None if last else (Merge if patches else Downsample)(dim)))
        self.levels_name = "layers" if patches else "levels"
        setattr(self, self.levels_name, levels)
        dim = embed_dim * 2 ** (len(depths) - 1)
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] to logits [B, classes]."""
        x = self.patch_embed(x)
        for level in getattr(self, self.levels_name):
            x = level(x)
        return self.head(self.norm(x).mean((1, 2)))
