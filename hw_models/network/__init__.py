"""Latency of a whole model on the CPU: layers, conversions between neighbours, other operators, launch overhead.

The parts come from kernels timed alone (``terms``), the neighbours and the operators outside the sites from the
exported float model (``graph``, ``operators``), and the factors that make the sum of the parts the time of the whole
are learned from a few exports timed whole (``residual``). ``additivity`` reports how far the sum is from the whole.
"""

from __future__ import annotations

from .additivity import AdditivityReport, additivity
from .design import mixtures, uniform_designs
from .exports import Export, MeasuredExport, time_exports
from .graph import SiteGraph, execution_order, exported_graph
from .network import Network, measure_network
from .operators import OtherOperators, other_operators
from .parts import KernelCost, terms_of
from .residual import Residual, fit, prior
from .terms import KINDS, PARTS, Terms
from .whole import WholeModel, whole_model

__all__ = [
    "KINDS",
    "PARTS",
    "AdditivityReport",
    "Export",
    "KernelCost",
    "MeasuredExport",
    "Network",
    "OtherOperators",
    "Residual",
    "SiteGraph",
    "Terms",
    "WholeModel",
    "additivity",
    "execution_order",
    "exported_graph",
    "fit",
    "measure_network",
    "mixtures",
    "other_operators",
    "prior",
    "terms_of",
    "time_exports",
    "uniform_designs",
    "whole_model",
]
