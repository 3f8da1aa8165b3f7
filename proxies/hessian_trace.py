r"""Hessian trace: half of HAWQ-V2's Omega for every site and format, the second-order loss of a random perturbation.

.. math::
    s[l, f] = \frac12 \frac{\operatorname{tr}(H_l)}{n_l} \lVert Q_f(W_l) - W_l \rVert_2^2
            + \frac12 \frac{\operatorname{tr}(H_{a_l})}{m_l} \lVert Q_f(a_l) - a_l \rVert_2^2

with H_l the Hessian of the task's objective with respect to the n_l weights of site l, and H_{a_l} that with respect
to the m_l elements of the activation that enters it (per sample). Dong et al. 2020, HAWQ-V2, arXiv:1911.03852, eq. 7
and section 3.4.

===============  =====================================================================================================
``estimator``    traces of
===============  =====================================================================================================
``gauss_newton`` the Gauss-Newton matrix, by squared norms of single samples' back-propagated roots
                 (``gauss_newton_probes``). It is the Hessian where the objective is a distance to the float model's
                 own outputs (``kl``, ``relative_error``, ``cosine``), and for cross-entropy at sites in which the
                 network is piecewise linear (``piecewise_linear``: every layer of a ReLU network)
``hutchinson``   the Hessian, by v . H v with random signs v, one product for all sites
``hutch++``      the Hessian, site by site (``hutchpp``): exact blocks, ``probes`` products for each site
``xtrace``       likewise (``xtrace``)
``auto``         the Hessian: Gauss-Newton, plus Hutchinson of what the Hessian has beyond it, for cross-entropy and
                 only at the sites that have such; Hutchinson for other losses
===============  =====================================================================================================

Evidence for ``auto`` (``benchmarks/hessian.py``; ResNet-20, 16 samples, 22 sites): exact in 0.12 CPU seconds, where 100
Hutchinson products take 2.2 and leave a median error of 50 %. For a loss of your own on a small model choose
``xtrace``: 12 products for each site take 1.2 seconds and leave 1 %; the work grows with the sites times the products.

Full batch or mini-batch: the objective is the mean over the ``samples`` calibration samples, and the trace of its
Hessian is the mean of the micro-batches' traces, so that probes of single samples or micro-batches estimate the
full-batch trace, with less variance than probes of the full-batch Hessian, whose cross products they do not see. That
is the default. ``full_batch=True`` lets Hutchinson's v be the same for all micro-batches, as PyHessian does on a data
loader; Hutch++ and XTrace always see the full batch. Only ``relative_error``, a ratio, depends on how samples are
grouped: it is taken within micro-batches. The error is that of the traces over just these samples (``stratified``).

Sampling stops when every site is either known to ``tolerance`` or decided (``stopping``); further probes go only to
the others: only they are differentiated, and their noise in each other's products vanishes. What was not reached within
``probes`` is seen in ``Sensitivity.error``. A first-order term, where it is asked for, is exact on these samples and
adds no error; decisions about further probes do not look at it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, get_args

import numpy as np

from ..errors import InvalidInput, NonFiniteOutput
from ..evaluators import QuantizedModel
from ..formats import Format
from .first_order import first_order_terms, mean_over_samples
from .gradient_errors import check_reached, rounded_modules
from .layer_calls import pieces
from .perturbation import activation_errors, weight_errors
from .sensitivity import Advance, Sensitivity, in_evaluation
from .site_traces import Estimator, Setting, Traces, estimate
from .stopping import relative_errors, undecided

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Batch, Task


class HessianTrace:
    """Mean Hessian trace times squared error, for weights and, where formats round them, activations.

    Args:
        samples: calibration samples over which the objective is taken.
        probes: random vectors at most, for each sample (``gauss_newton``), micro-batch (``hutchinson``), or site
            (``hutch++``, ``xtrace``: products).
        tolerance: relative standard error of a site's traces that is enough.
        batch: samples differentiated at a time; bounds the memory. If all fit into one, its graph is kept.
        estimator: see the module docstring.
        full_batch: whether Hutchinson's vectors are the same for all micro-batches.
        undecided_only: whether sites whose format is settled at every budget are left alone before they reach
            ``tolerance``.
        z: standard errors that settle a format.
        first_order: whether the signed first-order term is added (``first_order``), which the paper leaves out.
    """

    name = "hessian_trace"
    summary = "HAWQ-V2's Omega, halved: mean Hessian trace x squared quantization error"
    additive = True
    gradients = 2
    source = "Dong et al. 2020 (HAWQ-V2), arXiv:1911.03852, eq. 7 and section 3.4"

    def __init__(
        self,
        samples: int = 64,
        probes: int = 32,
        tolerance: float = 0.1,
        batch: int = 16,
        estimator: Estimator = "auto",
        full_batch: bool = False,
        undecided_only: bool = True,
        z: float = 2.0,
        first_order: bool = False,
    ) -> None:
        self.samples = samples
        self.probes = probes
        self.tolerance = tolerance
        self.batch = batch
        self.estimator = estimator
        self.full_batch = full_batch
        self.undecided_only = undecided_only
        self.z = z
        self.first_order = first_order

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Micro-batches x probes, twice where the Hessian is estimated in two parts; and the sites."""
        batches = len(pieces(task, self.samples, self.batch, self.name))
        return 2 * batches * self.probes + len(space.sites)

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring.

        Raises:
            InvalidInput: settings out of range, or an estimator that does not suit the task's loss.
            UnsupportedModel: the model cannot be differentiated.
            NonFiniteOutput: the outputs or a trace are not finite.
        """
        started = time.perf_counter()
        self._check()
        batches = pieces(task, self.samples, self.batch, self.name)
        effects = half_mean_squares(task, space, calibration, batches)
        bits = weight_bits(space)

        def open_sites(values: np.ndarray, errors: np.ndarray) -> np.ndarray:
            vague = np.any(relative_errors(values, errors) > self.tolerance, axis=0)
            if not self.undecided_only:
                return np.asarray(vague)
            return np.asarray(vague & undecided(values, errors, effects, bits, _BUDGETS, self.z))

        quantized = QuantizedModel(task.model, space, calibration, cache_bytes=0)
        setting = Setting(self.estimator, self.probes, self.tolerance, self.full_batch, seed)
        traces = estimate(task, space, batches, rounded_modules(quantized, space), setting, open_sites, advance)
        self._check_traces(space, traces)
        check_reached(task, quantized, traces.reached, batches[0])
        values = (traces.values[:, :, None] * effects).sum(0)
        if self.first_order:
            terms, passes = first_order_terms(task, space, calibration, batches)
            values += mean_over_samples(terms, batches).sum(0)
            traces.forward, traces.backward = traces.forward + passes, traces.backward + passes
        return Sensitivity(
            self.name,
            values,
            np.sqrt(((traces.errors[:, :, None] * effects) ** 2).sum(0)),
            tuple(space.names),
            space.formats,
            time.perf_counter() - started,
            traces.forward,
            traces.backward,
        )

    def _check(self) -> None:
        if self.estimator not in get_args(Estimator):
            known = ", ".join(get_args(Estimator))
            raise InvalidInput(f"hessian_trace: estimator must be one of {known}, got {self.estimator!r}")
        if self.probes < 2 or not self.tolerance >= 0 or not self.z >= 0:
            raise InvalidInput(
                "hessian_trace needs probes of at least 2, and tolerance and z of at least 0, "
                f"got {self.probes}, {self.tolerance}, {self.z}"
            )

    def _check_traces(self, space: SearchSpace, traces: Traces) -> None:
        bad = ~np.isfinite(traces.values + traces.errors).all(0)
        if bad.any():
            name = space.sites[int(bad.argmax())].name
            raise NonFiniteOutput(
                f"the Hessian trace of site {name} is NaN or infinite; check the loss and the calibration data"
            )


_BUDGETS = 16  # average bits at which decisions are looked at


def half_mean_squares(task: Task, space: SearchSpace, calibration: Calibration, batches: list[Batch]) -> np.ndarray:
    """What the traces are multiplied with, half the mean squared errors: [2, sites, formats].

    Weights first, then activations (0 where a format leaves them alone); NaN where a format is not offered.
    """
    elements = np.array([site.elements for site in space.sites], dtype=np.float64)
    activations, counts = activation_errors(task, space, calibration, batches)
    weights = weight_errors(task, space, calibration) / elements[:, None]
    return 0.5 * np.stack([weights, activations / np.maximum(counts, 1)[:, None]])


def weight_bits(space: SearchSpace) -> np.ndarray:
    """Bits of the elements of every weight in every format: [sites, formats]."""
    bits = np.array([Format.parse(name).weight.bits for name in space.formats], dtype=np.float64)
    elements = np.array([site.elements for site in space.sites], dtype=np.float64)
    return elements[:, None] * bits[None]
