r"""Second moments of what enters a layer: all that reconstruction needs to know of the data.

The output error of a layer is a quadratic form in the error of its weight: with rows :math:`x_n` of the input,

.. math::
    \frac1N \sum_n \lVert W x_n - \hat W x_n \rVert^2 = \operatorname{tr}\big((W - \hat W)\, H\, (W - \hat W)^\top\big),
    \qquad H = \frac1N \sum_n x_n x_n^\top

so one pass over the calibration data serves every format and every method, and no activation is stored. The inputs are
those of the float model: the formats of the layers before are not known when the codes are chosen.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InvalidInput, NonFiniteOutput
from ...space import Site
from ...task import Task
from ..float_run import run_float
from .rows import Blocks, Rows, call_rows

_CHUNK = 1 << 22  # elements copied at a time


@dataclass(frozen=True)
class Moment:
    """Second moments of the rows that enter a layer.

    Attributes:
        matrix: H, float32 [blocks, elements, elements].
        blocks: how the weight falls into blocks.
    """

    matrix: Tensor
    blocks: Blocks


def second_moments(
    task: Task, sites: Sequence[Site], rows: int = 16384, seed: int = 0, memory: int = 1 << 30
) -> Iterator[tuple[Site, Moment]]:
    r"""Second moments at every site, from the float model on the calibration data.

    Sites are gathered in as many passes over the data as the memory allows. A weight that several modules share, or
    that is used several times, gets the sum over all its uses. Where a shared weight is also looked up (tied
    embeddings), the error of the look-ups, :math:`\sum_c n_c \lVert w_c - \hat w_c \rVert^2` with n_c look-ups of row
    c, is added with n_c replaced by its mean, which keeps one H for all rows.

    Args:
        task: model and calibration data.
        sites: where.
        rows: about how many rows of each site enter; of more of them a random sample does, evenly over the calls.
        seed: of the sampling.
        memory: bytes of moments held at a time; a site that needs more gets a pass of its own.

    Yields:
        Each site and its moments, in order.

    Raises:
        NonFiniteOutput: an activation is NaN or infinite; the message names the layer.
        InvalidInput: modules share a weight, and multiply it in different groups.
    """
    for group in _passes(task.model, sites, memory):
        gathered = {site.name: _Sum(task, site, rows, seed) for site in group}
        with ExitStack() as stack, torch.no_grad():
            for site in group:
                for name in site.modules:
                    hook = _hook(gathered[site.name])
                    handle = task.model.get_submodule(name).register_forward_hook(hook, with_kwargs=True)
                    stack.callback(handle.remove)
            for batch in task.calibration:
                run_float(task.model, batch, "calibration")
        for site in group:
            yield site, gathered.pop(site.name).moment()


def _passes(model: nn.Module, sites: Sequence[Site], memory: int) -> Iterator[list[Site]]:
    """Consecutive sites whose moments fit into memory together."""
    group: list[Site] = []
    held = 0
    for site in sites:
        blocks, size = _shape(model, site)
        needed = 4 * blocks.count * size * size
        if group and held + needed > memory:
            yield group
            group, held = [], 0
        group.append(site)
        held += needed
    if group:
        yield group


def _shape(model: nn.Module, site: Site) -> tuple[Blocks, int]:
    """The blocks of a site, and the elements of a row in each."""
    weight = model.get_parameter(site.parameter)
    modules = [model.get_submodule(name) for name in site.modules]
    found = {Blocks.of(module, weight) for module in modules if not isinstance(module, nn.Embedding)}
    if len(found) != 1:
        raise InvalidInput(
            f"the modules of site {site.name} ({', '.join(site.modules)}) multiply one weight in different groups; "
            "exclude it, or round it to nearest (weights=mse)"
        )
    blocks = found.pop()
    elements = math.prod(site.weight_shape) // site.weight_shape[site.channel_axis]
    return blocks, elements // blocks.count if blocks.across else elements


class _Sum:
    """The running sum of one site."""

    def __init__(self, task: Task, site: Site, rows: int, seed: int) -> None:
        self.site = site
        self.weight = task.model.get_parameter(site.parameter)
        self.blocks, size = _shape(task.model, site)
        self.total = torch.zeros(self.blocks.count, size, size, device=self.weight.device)
        self.seen = 0
        self.share = math.ceil(rows / (max(1, site.calls) * len(task.calibration)))
        self.generator = torch.Generator().manual_seed(seed ^ zlib.crc32(site.name.encode()))

    def add(self, rows: Rows) -> None:
        """Add the rows of one call, or a sample of them that counts for all."""
        taken = min(len(rows), self.share)
        if not taken:
            return
        index = torch.arange(len(rows))
        if taken < len(rows):
            index = torch.randperm(len(rows), generator=self.generator)[:taken].sort().values
        target = self.total[rows.first : rows.first + rows.blocks]
        for chunk in torch.split(index, max(1, _CHUNK // rows.elements)):
            values = rows.take(chunk)
            target.baddbmm_(values.mT, values, alpha=len(rows) / taken)
        self.seen += len(rows)

    def look_up(self, module: nn.Embedding, output: Tensor) -> None:
        """Add the error of a look-up, spread evenly over the rows of the table."""
        looked_up = output.numel() // module.embedding_dim
        self.total.diagonal(dim1=1, dim2=2).add_(looked_up / module.num_embeddings)
        self.seen += looked_up

    def moment(self) -> Moment:
        """The mean over all rows."""
        if not bool(torch.isfinite(self.total).all()):
            raise NonFiniteOutput(
                f"the activation that enters {self.site.name} is NaN or infinite (or overflows when squared) on the "
                "calibration data"
            )
        return Moment(self.total.div_(max(1, self.seen)), self.blocks)


def _hook(gathered: _Sum) -> Callable[..., None]:
    def gather(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if isinstance(module, nn.Embedding):
            gathered.look_up(module, output)
            return
        for rows in call_rows(module, gathered.weight, args, kwargs, output):
            gathered.add(rows)

    return gather
