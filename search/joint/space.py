"""The joint space: the architectures of a family, and for each the sites and formats of its network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ...architecture import Choices, Family
from ...errors import InvalidInput, UnsupportedModel
from ...evaluators import Calibration, Recipe, calibrate, prepared
from ...space import SearchSpace, match_sites
from ...store import Store
from ...task import Batch, Task
from ..progress import Silent
from ..stage import Ledger
from ..stages import calibrated, traced
from .judged_task import Judge, resized

if TYPE_CHECKING:
    from torch import nn

_KEPT = 6  # networks with their weights and scales


@dataclass(frozen=True)
class JointSpace:
    """The architectures of a family, and the formats that every site of each may take.

    Attributes:
        family: what builds them.
        formats: offered; where a layer kind cannot take one it is left out there.
        exclude: globs of site names that stay in float; each must match a site of the largest architecture, others
            may lack it.
        ties: as for ``SearchSpace.from_model``; of explicit groups what exists in an architecture counts.
        kept: how many networks ``at`` keeps.
        restrict: takes away what an export target cannot load; ``None``: nothing is.
    """

    family: Family
    formats: tuple[str, ...] = ("w2", "w4", "w8", "bf16")
    exclude: tuple[str, ...] = ()
    ties: str | tuple[tuple[str, ...], ...] = "auto"
    kept: int = _KEPT
    restrict: Callable[[SearchSpace], SearchSpace] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.family, Family):
            raise InvalidInput(
                f"a family has name, architecture, build, resolution and digest (bitfront.architecture.Family), got "
                f"{type(self.family).__name__}"
            )
        if self.kept < 1:
            raise InvalidInput(f"kept={self.kept}; keep at least one network")
        object.__setattr__(self, "_networks", OrderedDict())

    def __getstate__(self) -> dict[str, Any]:
        """What travels to a worker: no built networks."""
        return {**self.__dict__, "_networks": OrderedDict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """What ``__getstate__`` gave."""
        self.__dict__.update(state)

    def at(self, choices: Choices, example_inputs: Any) -> tuple[nn.Module, SearchSpace]:
        """The network of one architecture and its space; the last few are kept.

        Args:
            choices: the architecture.
            example_inputs: one batch, as for ``SearchSpace.from_model``; resized as the architecture asks.

        Returns:
            The module (do not change it: it is kept), and its sites, formats and ties; the space says of which
            architecture it is.

        Raises:
            InvalidInput: choices that the family does not have, or a site that can take none of the formats.
            UnsupportedModel: the network fails on the inputs, or has no site.
        """
        example = resized(Batch.of(example_inputs), self.family.resolution(choices))
        shapes = tuple(sorted((name, tuple(tensor.shape)) for name, tensor in example.tensors.items()))
        networks: OrderedDict[Any, tuple[nn.Module, SearchSpace]] = self.__dict__["_networks"]
        key = (choices.digest, shapes)
        if key not in networks:
            module = self.build(choices)
            networks[key] = module, self.of(module, choices, example)
            if len(networks) > self.kept:
                networks.popitem(last=False)
        networks.move_to_end(key)
        return networks[key]

    def build(self, choices: Choices) -> nn.Module:
        """The network of an architecture in evaluation mode.

        Raises:
            InvalidInput: the family does not have these choices.
            UnsupportedModel: the family returned no module.
        """
        from torch import nn

        built = self.family.build(self.family.architecture.choices(choices))
        if not isinstance(built, nn.Module):
            raise UnsupportedModel(
                f"family {self.family.name!r} built {type(built).__name__}; build must return a torch.nn.Module"
            )
        return built.eval()

    def of(self, module: nn.Module, choices: Choices, example: Batch) -> SearchSpace:
        """The space of a network that was built from choices, found by tracing it."""
        return self.told(choices, lambda *asked: SearchSpace.from_model(module, example, *asked))

    def told(self, choices: Choices, trace: Callable[..., SearchSpace]) -> SearchSpace:
        """The space that a trace finds, with what is asked of an architecture that may lack some of the sites.

        Args:
            choices: the architecture.
            trace: called with formats, exclude and ties, as ``SearchSpace.from_model`` takes them.
        """
        exclude, ties = self.exclude, self.ties
        if exclude or not isinstance(ties, str):
            names = trace(self.formats, (), "none").names
            if choices == self.family.architecture.largest():
                match_sites(names, exclude, "exclude")
            exclude = tuple(glob for glob in exclude if any(fnmatchcase(name, glob) for name in names))
            if not isinstance(ties, str):
                groups = (tuple(g for g in group if any(fnmatchcase(n, g) for n in names)) for group in ties)
                ties = tuple(group for group in groups if len(match_sites(names, group, "ties")) > 1)
        found = trace(self.formats, exclude, ties)
        found = found if self.restrict is None else self.restrict(found)
        return replace(found, architecture=self.family.architecture, choices=choices)


@dataclass(frozen=True)
class Subnet:
    """One architecture made real.

    Attributes:
        choices: which.
        task: its module, the data as it takes it, the metric of the search.
        space: its sites.
    """

    choices: Choices
    task: Task
    space: SearchSpace

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self.task.model


class Subnets:
    """Architectures made real for one task, the last few kept with their scales and codes.

    Args:
        joint: family, formats, ties.
        task: data and metric; its model is what self-referenced metrics compare with.
        recipe: how weights are rounded and ranges chosen.
        store: keeps spaces and calibrations, so that what is known is not traced or calibrated again; ``None`` in
            workers.
        ledger: is told what was reused.
        kept: how many.
    """

    def __init__(
        self,
        joint: JointSpace,
        task: Task,
        recipe: Recipe | None = None,
        store: Store | None = None,
        ledger: Ledger | None = None,
        kept: int = _KEPT,
    ) -> None:
        self.joint, self.judge, self.recipe = joint, Judge(task), recipe or Recipe()
        self.store, self.ledger, self.kept = store, ledger or Ledger(), kept
        self._made: OrderedDict[Choices, Subnet] = OrderedDict()
        self._calibrations: OrderedDict[Choices, Calibration] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """What travels to a worker: no store, and nothing that can be made again."""
        empty: dict[str, Any] = {
            "store": None,
            "ledger": Ledger(),
            "_made": OrderedDict(),
            "_calibrations": OrderedDict(),
        }
        return {**self.__dict__, **empty}

    @property
    def task(self) -> Task:
        """The task of the search."""
        return self.judge.original

    def at(self, choices: Choices) -> Subnet:
        """One architecture, equalized where the recipe says so.

        Raises:
            InvalidInput: choices that the family does not have, or a site that can take none of the formats.
            UnsupportedModel: the network fails on the data, or has no site.
        """
        if choices not in self._made:
            family = self.joint.family
            task = self.judge.task(self.joint.build(choices), family.resolution(choices))
            space = self._space(choices, task)
            self._made[choices] = Subnet(choices, prepared(task, space, self.recipe), space)
            if len(self._made) > self.kept:
                self._made.popitem(last=False)
        self._made.move_to_end(choices)
        return self._made[choices]

    def calibration(self, choices: Choices) -> Calibration:
        """Scales, codes and ranges of an architecture."""
        if choices not in self._calibrations:
            net = self.at(choices)
            if self.store is None:
                found = calibrate(net.task, net.space, self.recipe)
            else:
                found = calibrated(net.task, net.space, self.recipe, self.store, Silent(), ledger=self.ledger)
            self._calibrations[choices] = found
            if len(self._calibrations) > self.kept:
                self._calibrations.popitem(last=False)
        self._calibrations.move_to_end(choices)
        return self._calibrations[choices]

    def _space(self, choices: Choices, task: Task) -> SearchSpace:
        if self.store is None:
            return self.joint.of(task.model, choices, task.calibration[0].piece(0, 2))
        store = self.store

        def trace(formats: tuple[str, ...], exclude: tuple[str, ...], ties: Any) -> SearchSpace:
            return traced(task, formats, exclude, ties, store, ledger=self.ledger)

        return self.joint.told(choices, trace)
