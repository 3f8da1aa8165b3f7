"""What enters the projections of ``nn.MultiheadAttention``, whose weights the module uses without calling layers."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

PACKED = 3  # blocks of in_proj_weight: query, key, value


def attention_inputs(
    module: nn.MultiheadAttention, weight: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Tensor]:
    """The tensors [..., features] that one weight of an attention is multiplied with in one call.

    Query, key and value are arguments of the call. What leaves the heads is not; but the output projection is square,
    so the same call with the identity in its place returns just that.

    Args:
        module: the attention.
        weight: one of its weights.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.

    Returns:
        Three tensors for the packed input projection, one for any other weight.
    """
    if weight is module.out_proj.weight:
        plain = {"out_proj.weight": torch.eye(len(weight), dtype=weight.dtype, device=weight.device)}
        if module.out_proj.bias is not None:
            plain["out_proj.bias"] = torch.zeros_like(module.out_proj.bias)
        heads: Tensor = functional_call(
            _Bare(module), {f"inner.{name}": each for name, each in plain.items()}, args, kwargs
        )
        return [heads]
    given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    inputs = [given["query"], given["key"], given["value"]]
    if module.in_proj_weight is weight:
        return inputs
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    return [value for value, name in zip(inputs, names, strict=True) if getattr(module, name) is weight]


class _Bare(nn.Module):
    """An attention called without its hooks, which are what is running; only the first output."""

    def __init__(self, inner: nn.MultiheadAttention) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Attend."""
        return self.inner.forward(*args, **kwargs)[0]
