"""Which rectified units are on: one bit a unit and sample, layer by layer in the order of execution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_RECTIFIERS = ("relu", "hardtanh", "leaky_relu", "elu", "hardswish", "silu", "gelu", "mish")
_EXACT = 2**24  # float32 holds whole numbers up to here


class ActivationCodes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, every rectifier (ReLU, ReLU6, ELU, SiLU, GELU, …) hands over which of its outputs are positive.

    Modules and functional calls count alike.

    Args:
        seen: gets bool [samples, units] of every call.
    """

    def __init__(self, seen: Callable[[Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = seen
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, look at what comes out."""
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__.rstrip("_") in _RECTIFIERS and isinstance(output, Tensor):
            self.calls += 1
            self.seen((output.detach() > 0).flatten(1) if output.ndim > 1 else (output.detach() > 0)[:, None])
        return output


def no_rectifier(proxy: str) -> str:
    """What to say of a network without one."""
    return f"proxy {proxy} looks at rectified units, and the network has none; choose synflow, jacov or grad_norm"


def agreements(code: Tensor) -> Tensor:
    """Units in which two samples agree: float64 [samples, samples], from bool [samples, units]."""
    signs = code.to(torch.float32).mul_(2).sub_(1)
    total = torch.zeros(len(code), len(code), dtype=torch.float64, device=code.device)
    for start in range(0, code.shape[1], _EXACT):
        block = signs[:, start : start + _EXACT]
        total += (block @ block.T).double()
    return (total + code.shape[1]) / 2
