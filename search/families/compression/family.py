"""The family of a model's compressed versions: blocks skipped, channels cut, layers factored, then repaired."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from ....architecture import ArchitectureSpace, Choices
from ....errors import UnsupportedModel
from ....task import Batch, Task
from .blocks import Block
from .low_rank import factorize, matrix, rank_of, shape
from .moments import Moments
from .pruning import CONSUMERS, ChannelGroup, Removal, heads_kept, removals, take_out
from .reconstruction import made_up, set_matrix
from .running import fault, replace
from .settings import Settings
from .statistics import match_means, renormalize


@dataclass(frozen=True)
class Knowledge:
    """What the calibration data told; empty without data.

    Attributes:
        batches: the data, in one batch where shapes allow it.
        moments: of the inputs of layers that are factored or read cut channels.
        means: of the outputs of layers with a bias, where the model has no batch normalization.
        statistics: of batch normalizations on this data.
    """

    batches: Sequence[Batch]
    moments: Mapping[str, Moments]
    means: Mapping[str, Tensor]
    statistics: Mapping[str, tuple[Tensor, Tensor]]


class CompressionFamily:
    """Compressed versions of one model; made by ``compress``.

    Attributes:
        name: ``"compression"``.
        architecture: ``PATH.skip``, ``PATH.width`` and ``PATH.rank`` for the blocks, groups and layers that were found.
        left_out: what looked like a dimension and is none -> why.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        architecture: ArchitectureSpace,
        blocks: Sequence[Block],
        groups: Sequence[ChannelGroup],
        example: Batch,
        expected: Sequence[Tensor],
        knowledge: Knowledge,
        left_out: Mapping[str, str],
    ) -> None:
        self.name = "compression"
        self.architecture = architecture
        self.left_out = dict(left_out)
        self._model = model
        self._settings = settings
        self._blocks = {f"{each.path}.skip": each for each in blocks}
        self._groups = {f"{each.path}.width": each for each in groups}
        self._example = example
        self._expected = list(expected)
        self._knowledge = knowledge
        self._digest = _digest(self)

    @property
    def digest(self) -> str:
        """Content hash of the model, the data, the arguments and what was found (16 hex digits)."""
        return self._digest

    def resolution(self, choices: Choices) -> int | None:
        """``None``: inputs are left as they are."""
        return None

    def build(self, choices: Choices) -> nn.Module:
        """The compressed network of these choices, in evaluation mode; the caller's model is never touched.

        Widths are cut first, then layers are factored (at shares of the rank that is left), then blocks are skipped,
        and statistics are taken again at last.

        Raises:
            InvalidInput: choices that this family does not have.
            UnsupportedModel: the network does not run, or its outputs have another shape or are not finite.
        """
        values = self.architecture.choices(choices)
        model = copy.deepcopy(self._model)
        cut = [(group, group.kept(float(values[name]), self._settings.round_to))
               for name, group in self._groups.items() if name in values]  # fmt: skip
        gone = removals(cut)
        take_out(model, gone, heads_kept(cut))
        kept = self._reconstruct(model, gone)
        for name, share in values.items():
            path = name.removesuffix(".rank")
            if path != name and float(share) < 1:
                self._factorize(model, path, float(share), kept.get(path))
        for name, block in self._blocks.items():
            if values.get(name):
                replace(model, block.path, block.stand_in)
        why = fault(model, self._example, self._expected)
        chosen = {name: value for name, value in values.items() if value is True or (value is not False and value != 1)}
        if why:
            raise UnsupportedModel(f"the network of {chosen} cannot be used: {why}; exclude one of these dimensions")
        if chosen and "statistics" in self._settings.recover:
            self._match(model, gone)
        return model.eval()

    def _reconstruct(self, model: nn.Module, gone: Sequence[Removal]) -> dict[str, Tensor]:
        """Repair the readers of channels that are gone; returns the inputs that stay in each of them."""
        found = {}
        for each in gone:
            if each.operation not in CONSUMERS:
                continue
            before = self._model.get_submodule(each.path)
            inputs = before.get_parameter("weight").shape[1]
            columns = torch.arange(matrix(before).shape[1]).view(inputs, -1)
            stays = torch.ones(inputs, dtype=torch.bool)
            stays[list(each.index)] = False
            found[each.path] = kept = columns[stays].flatten()
            moments = self._knowledge.moments.get(each.path)
            if "reconstruct" in self._settings.recover and moments is not None:
                bias = before.bias if isinstance(before.bias, Tensor) else None
                weight, shifted = made_up(matrix(before), None if bias is None else bias.detach(), moments, kept)
                outputs = _outputs_that_stay(each.path, gone, len(weight))
                narrow = None if shifted is None else shifted[outputs]
                set_matrix(model.get_submodule(each.path), weight[outputs], narrow)
        return found

    def _factorize(self, model: nn.Module, path: str, share: float, kept: Tensor | None) -> None:
        layer = model.get_submodule(path)
        moments = self._knowledge.moments.get(path)
        second = None if moments is None else (moments.second if kept is None else moments.of(kept).second)
        rank = rank_of(share, *shape(layer), self._settings.round_to)
        replace(model, path, factorize(layer, rank, second))

    def _match(self, model: nn.Module, gone: Sequence[Removal]) -> None:
        """Statistics of batch normalizations, or else the means of the outputs."""
        known = self._knowledge
        if known.statistics:
            renormalize(model, known.batches, {
                path: (mean[stay], variance[stay])
                for path, (mean, variance) in known.statistics.items()
                for stay in [_outputs_that_stay(path, gone, len(mean))]
            })  # fmt: skip
        elif known.means:
            modules = dict(model.named_modules())
            wanted = {}
            for path, mean in known.means.items():
                last = f"{path}.1" if isinstance(modules.get(path), nn.Sequential) else path
                if last in modules:
                    wanted[last] = mean[_outputs_that_stay(path, gone, len(mean))]
            match_means(model, known.batches, wanted)


def _outputs_that_stay(path: str, gone: Sequence[Removal], count: int) -> Tensor:
    """Positions of the outputs of a layer (or the channels of a norm) that stay, int64."""
    stays = torch.ones(count, dtype=torch.bool)
    for each in gone:
        if each.path == path and each.operation not in CONSUMERS:
            stays[list(each.index)] = False
    return stays.nonzero().flatten()


def _digest(family: CompressionFamily) -> str:
    data = list(family._knowledge.batches) or [family._example]
    task = Task(family._model, calibration=data, validation=[family._example], holdout=[family._example])
    groups = [[name, group.unit, group.order, group.heads] for name, group in family._groups.items()]
    content = [
        "1", task.digest("calibration", "validation"), family.architecture.digest, asdict(family._settings), groups
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()[:16]
