"""The protocol of zero-cost proxies of whole networks, and their registry."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ...errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...task import Batch

Loss: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""``loss(outputs, targets)`` -> mean over the samples."""


class ArchitectureProxy(Protocol):
    """Foretells how good a network will be once it is trained, from the network as it was initialized.

    Attributes:
        name: key of the registry.
        summary: what it computes, one line.
        labels: whether it needs the targets of the batch.
        gradients: what it differentiates: 0 nothing, 1 once, 2 twice.
        source: paper, arXiv id and equation.
    """

    name: str
    summary: str
    labels: bool
    gradients: int
    source: str

    def score(self, module: nn.Module, batch: Batch, loss: Loss | None, seed: int) -> float:
        """The score, higher is better; minus infinity for a network that it calls useless, never NaN.

        Args:
            module: left as it was, whatever it is.
            batch: real data; its size enters many scores, so compare networks on one batch.
            loss: of outputs and targets; ``None`` is the cross-entropy.
            seed: of what is drawn.
        """
        ...


def architecture_proxies() -> dict[str, type[Any]]:
    """All proxies by name: those of bitfront and those that installed packages register.

    Other packages add theirs under the entry-point group ``bitfront.architecture_proxies``.
    """
    from .fisher import Fisher
    from .flops import FLOPs
    from .grad_norm import GradNorm
    from .grasp import GraSP
    from .jacov import JacobianCovariance
    from .linear_regions import LinearRegions
    from .ntk import NTKCondition
    from .nwot import NWOT
    from .params import Params
    from .snip import SNIP
    from .synflow import SynFlow
    from .zen import Zen
    from .zico import ZiCo

    built_in: list[type[Any]] = [
        *(NWOT, SynFlow, JacobianCovariance, SNIP, GraSP, Fisher, GradNorm),
        *(Zen, ZiCo, NTKCondition, LinearRegions, Params, FLOPs),
    ]
    found = {each.name: each for each in built_in}
    for entry in entry_points(group="bitfront.architecture_proxies"):
        found[entry.name] = entry.load()
    return found


def get_architecture_proxy(name: str) -> ArchitectureProxy:
    """The proxy of that name, with its default arguments.

    Raises:
        InvalidInput: no such proxy; the message names the nearest.
    """
    known = architecture_proxies()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise InvalidInput(f"unknown proxy {name!r}; did you mean {near[0]!r}? Known: {', '.join(sorted(known))}")
    proxy: ArchitectureProxy = known[name]()
    return proxy
