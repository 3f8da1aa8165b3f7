"""Sensitivity: the predicted loss of every site in every format; the protocol and the registry of proxies."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from ..errors import InvalidInput, NonFiniteOutput

if TYPE_CHECKING:
    import pandas as pd

    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task

Advance = Callable[[int], None]
_Score = TypeVar("_Score", bound=Callable[..., Any])


@dataclass(frozen=True)
class Sensitivity:
    """Predicted loss of each site in each format, lower is better; the allocator adds them up over the sites.

    Attributes:
        proxy: name of the proxy.
        values: float64 array [sites, formats]; NaN where a site does not offer a format.
        error: standard error of ``values``, same shape, or ``None`` for a deterministic proxy.
        sites: site names (rows).
        formats: format names (columns).
        seconds: wall time.
        forward_passes: samples run forward.
        backward_passes: samples run backward.
        additive: whether ``values`` estimate a loss that may be added up over the sites; otherwise they only rank.
        pairs: two site indices -> array [formats, formats], what the two cost beyond the sum of their values; for
            ``allocate(..., pair_loss=)``. ``None`` where the proxy does not look at pairs.
    """

    proxy: str
    values: np.ndarray
    error: np.ndarray | None
    sites: tuple[str, ...]
    formats: tuple[str, ...]
    seconds: float
    forward_passes: int = 0
    backward_passes: int = 0
    additive: bool = True
    pairs: Mapping[tuple[int, int], np.ndarray] | None = None

    def __post_init__(self) -> None:
        if np.isinf(self.values).any():
            row = int(np.argwhere(np.isinf(self.values))[0][0])
            raise NonFiniteOutput(f"proxy {self.proxy} gives an infinite score at site {self.sites[row]}")

    @property
    def table(self) -> pd.DataFrame:
        """The values as a frame: index sites, columns formats."""
        import pandas as pd

        return pd.DataFrame(self.values, index=pd.Index(self.sites, name="site"), columns=list(self.formats))

    def of(self, configuration: Mapping[str, str]) -> float:
        """The additive prediction for a configuration: sum over the sites."""
        column = {name: index for index, name in enumerate(self.formats)}
        rows = enumerate(self.sites)
        return float(sum(self.values[row, column[configuration[site]]] for row, site in rows))

    def joint(self, configuration: Mapping[str, str]) -> float:
        """The prediction with the interactions of ``pairs``: ``of`` plus their sum."""
        column = {name: index for index, name in enumerate(self.formats)}
        chosen = [column[configuration[site]] for site in self.sites]
        extra = sum(table[chosen[one], chosen[other]] for (one, other), table in (self.pairs or {}).items())
        return self.of(configuration) + float(extra)


class Proxy(Protocol):
    """A predictor of loss that never runs a whole configuration.

    Attributes:
        name: key of the registry.
        summary: what it computes, one line.
        additive: whether its values estimate a loss that may be added up over the sites; otherwise they only rank.
        gradients: what it differentiates: 0 nothing, 1 once, 2 twice (double backward).
        source: paper, arXiv id and equation.
    """

    name: str
    summary: str
    additive: bool
    gradients: int
    source: str

    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format)."""
        ...

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Upper bound of what ``advance`` will add up to, for progress bars."""
        ...


def in_evaluation(score: _Score) -> _Score:
    """A ``score`` method that runs with the task's model in evaluation mode, whatever mode it is in.

    Every module has its own mode again afterwards.
    """

    @functools.wraps(score)
    def evaluated(proxy: Proxy, task: Task, *args: Any, **kwargs: Any) -> Any:
        from ..evaluators import in_eval

        with in_eval(task.model):
            return score(proxy, task, *args, **kwargs)

    return evaluated  # type: ignore[return-value]


def proxies() -> dict[str, type[Any]]:
    """All proxies by name: those of bitfront and those that installed packages register.

    Other packages add theirs under the entry-point group ``bitfront.proxies``.
    """
    from .activation_aware import ActivationAware
    from .activation_trace import ActivationTrace
    from .augmented_hessian import AugmentedHessian
    from .bops import BOPs
    from .bparams import BParams
    from .delta_loss import DeltaLoss
    from .empirical_fisher import EmpiricalFisher
    from .entropy import Entropy
    from .fisher_pruning import FisherPruning
    from .fit import FIT
    from .formulas.proxy import EMQ, Evolved
    from .gauss_newton_diagonal import GaussNewtonDiagonal
    from .grasp import GraSP
    from .hessian_trace import HessianTrace
    from .interest_points import InterestPoints
    from .kurtosis import Kurtosis
    from .measured import MeasuredKL, MeasuredLoss, MeasuredQuality
    from .orthogonality import Orthogonality
    from .output_fisher import OutputFisher
    from .pairwise import Pairwise
    from .sampled_fisher import SampledFisher
    from .snip import SNIP
    from .sqnr import SQNR
    from .synflow import SynFlow
    from .top_eigenvalue import TopEigenvalue
    from .weight_mse import WeightMSE

    built_in: list[type[Any]] = [
        HessianTrace,
        GaussNewtonDiagonal,
        SampledFisher,
        EmpiricalFisher,
        FIT,
        OutputFisher,
        DeltaLoss,
        MeasuredKL,
        MeasuredLoss,
        MeasuredQuality,
        InterestPoints,
        Pairwise,
        AugmentedHessian,
        TopEigenvalue,
        ActivationTrace,
        SQNR,
        ActivationAware,
        WeightMSE,
        Entropy,
        Orthogonality,
        Kurtosis,
        SNIP,
        SynFlow,
        GraSP,
        FisherPruning,
        BParams,
        BOPs,
        EMQ,
        Evolved,
    ]
    found = {each.name: each for each in built_in}
    for entry in entry_points(group="bitfront.proxies"):
        found[entry.name] = entry.load()
    return found


def get_proxy(name: str) -> Proxy:
    """The proxy of that name; ``formula:`` and an expression (or a file that holds one) is a proxy too.

    Raises:
        InvalidInput: no such proxy or formula; the message names the nearest.
    """
    if name.startswith("formula:"):
        from .formulas.reference import formula_proxy

        return formula_proxy(name)
    known = proxies()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise InvalidInput(f"unknown proxy {name!r}; did you mean {near[0]!r}? Known: {', '.join(sorted(known))}")
    proxy: Proxy = known[name]()
    return proxy


def sensitivity(
    task: Task,
    space: SearchSpace,
    proxy: str = "hessian_trace",
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
    advance: Advance | None = None,
) -> Sensitivity:
    """Score every (site, format) of a space with one proxy.

    Args:
        task: model and calibration data; validation data is not touched.
        space: sites and formats.
        proxy: a name of ``proxies()``.
        calibration: scales and ranges; computed here if not given.
        seed: of the random probes.
        advance: called with the steps done, for progress bars.

    Returns:
        The scores; ``.table`` is a frame sites x formats.

    Raises:
        InvalidInput: unknown proxy.
        NonFiniteOutput: the model or a score is not finite.
    """
    from ..evaluators import calibrate, in_eval

    chosen = get_proxy(proxy)
    calibration = calibration or calibrate(task, space)
    with in_eval(task.model):
        return chosen.score(task, space, calibration, seed=seed, advance=advance)
