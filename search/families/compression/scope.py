"""Which modules may change: globs of the caller, and weights that several modules hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from torch import nn

from ....space import match_sites
from .settings import Settings


class Scope:
    """What of a model may be compressed.

    Args:
        model: gives the module paths.
        settings: has the globs.

    Raises:
        InvalidInput: a glob matches no module.
    """

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        names = [path for path, _ in model.named_modules() if path]
        self._included = match_sites(names, settings.include, "include") if names else set()
        self._excluded = match_sites(names, settings.exclude, "exclude")
        held = Counter(
            id(parameter)
            for module in model.modules()
            for parameter in {id(each): each for each in module._parameters.values() if each is not None}.values()
        )
        self._tied = {
            path
            for path, module in model.named_modules()
            if any(held[id(each)] > 1 for each in module._parameters.values() if each is not None)
        }

    def layer(self, path: str) -> bool:
        """Whether a layer may be replaced."""
        return path in self._included and path not in self._excluded

    def block(self, path: str) -> bool:
        """Whether a block may be skipped: nothing in it must stay."""
        return self.layer(path) and not any(each.startswith(f"{path}.") for each in self._excluded)

    def group(self, path: str, members: Iterable[str]) -> bool:
        """Whether channels may be cut: made by ``path``, running through ``members``."""
        return path in self._included and not self._excluded.intersection(members)

    def tied(self, paths: Iterable[str]) -> str:
        """The first of the modules whose weight another module holds too; empty if there is none."""
        return next((path for path in paths if path in self._tied), "")
