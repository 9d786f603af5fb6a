"""Neighborhood attention as PyTorch's automatic differentiation sees it."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nat_infer import _native

Gradient = tuple[Tensor | None, ...]


def on_the_cpu(**tensors: Tensor | None) -> None:
    """Refuses what this package does not compute with.

    Raises:
        TypeError: for what is no tensor of floats.
        RuntimeError: for a tensor that is not on the CPU.
    """
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor) or not tensor.dtype.is_floating_point:
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"neighborhood attention takes tensors of floats, {name} is {kind}")
        if tensor.device.type != "cpu":
            raise RuntimeError(
                f"nat_infer.torch computes on the CPU, and {name} is on {tensor.device}: move it with .cpu()"
            )


def compute_type(dtype: torch.dtype) -> torch.dtype:
    """What a tensor of this type is computed in: f64 stays, the rest is f32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def array(tensor: Tensor, dtype: torch.dtype) -> npt.NDArray[Any]:
    """The tensor's own memory where it is row-major and of this type, or a copy that is."""
    return tensor.detach().to(dtype).contiguous().numpy()


def tensor(values: npt.NDArray[Any], dtype: torch.dtype) -> Tensor:
    """A tensor of this type, in the array's memory if that is of the type."""
    return torch.from_numpy(values).to(dtype)


class Attention2D(torch.autograd.Function):
    """The whole operator."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, rpb: Tensor | None, heads: int, kernel_size: int, dilation: int
    ) -> Tensor:
        ctx.save_for_backward(qkv, rpb)
        ctx.sizes = (heads, kernel_size, dilation)
        dtype = compute_type(qkv.dtype)
        bias = None if rpb is None else array(rpb, dtype)
        return tensor(_native.na2d(array(qkv, dtype), bias, ctx.sizes, torch.get_num_threads()), qkv.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradient:
        qkv, rpb = ctx.saved_tensors
        dtype = compute_type(qkv.dtype)
        bias = None if rpb is None else array(rpb, dtype)
        grad_qkv, grad_rpb = _native.na2d_backward(
            array(qkv, dtype),
            bias,
            array(grad, dtype),
            ctx.sizes,
            ctx.needs_input_grad[1],
            torch.get_num_threads(),
        )
        return (
            tensor(grad_qkv, qkv.dtype) if ctx.needs_input_grad[0] else None,
            None if grad_rpb is None else tensor(grad_rpb, rpb.dtype),
            None,
            None,
            None,
        )


class Scores2D(torch.autograd.Function):
    """The half before the softmax: queries times keys, and the biases."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, rpb: Tensor | None, kernel_size: int, dilation: int
    ) -> Tensor:
        ctx.save_for_backward(query, key)
        ctx.window = (kernel_size, dilation)
        ctx.rpb_dtype = None if rpb is None else rpb.dtype
        result = torch.promote_types(query.dtype, key.dtype)
        dtype = compute_type(result)
        bias = None if rpb is None else array(rpb, dtype)
        return tensor(
            _native.na2d_scores(
                array(query, dtype), array(key, dtype), bias, kernel_size, dilation, torch.get_num_threads()
            ),
            result,
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradient:
        query, key = ctx.saved_tensors
        dtype = compute_type(torch.promote_types(query.dtype, key.dtype))
        scores, threads = array(grad, dtype), torch.get_num_threads()
        kernel_size, dilation = ctx.window
        grad_query = grad_key = grad_rpb = None
        if ctx.needs_input_grad[0]:
            sums = _native.na2d_mix(scores, array(key, dtype), kernel_size, dilation, False, threads)
            grad_query = tensor(sums, query.dtype)
        if ctx.needs_input_grad[1]:
            sums = _native.na2d_mix(scores, array(query, dtype), kernel_size, dilation, True, threads)
            grad_key = tensor(sums, key.dtype)
        if ctx.needs_input_grad[2]:
            grad_rpb = tensor(
                _native.na2d_bias_gradient(scores, kernel_size, dilation, threads), ctx.rpb_dtype
            )
        return grad_query, grad_key, grad_rpb, None, None


class Mix2D(torch.autograd.Function):
    """The half after the softmax: the values, each with its probability."""

    @staticmethod
    def forward(ctx: Any, attn: Tensor, value: Tensor, kernel_size: int, dilation: int) -> Tensor:
        ctx.save_for_backward(attn, value)
        ctx.window = (kernel_size, dilation)
        result = torch.promote_types(attn.dtype, value.dtype)
        dtype = compute_type(result)
        sums = _native.na2d_mix(
            array(attn, dtype), array(value, dtype), kernel_size, dilation, False, torch.get_num_threads()
        )
        return tensor(sums, result)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradient:
        attn, value = ctx.saved_tensors
        dtype = compute_type(torch.promote_types(attn.dtype, value.dtype))
        out, threads = array(grad, dtype), torch.get_num_threads()
        kernel_size, dilation = ctx.window
        grad_attn = grad_value = None
        if ctx.needs_input_grad[0]:
            products = _native.na2d_scores(out, array(value, dtype), None, kernel_size, dilation, threads)
            grad_attn = tensor(products, attn.dtype)
        if ctx.needs_input_grad[1]:
            sums = _native.na2d_mix(array(attn, dtype), out, kernel_size, dilation, True, threads)
            grad_value = tensor(sums, value.dtype)
        return grad_attn, grad_value, None, None


def scores2d(query: Tensor, key: Tensor, rpb: Tensor | None, kernel_size: int, dilation: int) -> Tensor:
    """`query` times each of its neighbours in `key`, both [B, heads, H, W, dim], and the biases `rpb`
    [heads, 2K−1, 2K−1]: [B, heads, H, W, K²]."""
    on_the_cpu(query=query, key=key, rpb=rpb)
    return Scores2D.apply(query, key, rpb, kernel_size, dilation)


def mix2d(attn: Tensor, value: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """The sum of each pixel's neighbours in `value` [B, heads, H, W, dim] with the weights `attn`
    [B, heads, H, W, K²]: of `value`'s shape."""
    on_the_cpu(attn=attn, value=value)
    return Mix2D.apply(attn, value, kernel_size, dilation)
