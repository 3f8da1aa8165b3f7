"""Timing this machine's real kernels for the shapes of a model or a grid: ``bitfront measure``.

A ``Backend`` loads and times kernels (onnxruntime and torch on the CPU, torch on CUDA), ``make_plan`` says beforehand
how long it will take, ``execute`` works through the plan and adds the rows to a table as they come.
"""

from __future__ import annotations

from .backend import Backend, Timed, Trial
from .catalogue import CONVERSIONS, FORMATS, conversion, convolution, format_of, in_format, in_formats, product
from .cpu_backends import OnnxRuntimeBackend, TorchCpuBackend
from .cuda_backend import CudaBackend
from .event_timing import MODES
from .grid import Grid, parse_grid, read_grid, shipped
from .model_kernels import model_kernels
from .plan import Plan, Planned, classes, make_plan
from .session import Outcome, Rejected, execute, known_rows

__all__ = [
    "CONVERSIONS",
    "FORMATS",
    "MODES",
    "Backend",
    "CudaBackend",
    "Grid",
    "OnnxRuntimeBackend",
    "Outcome",
    "Plan",
    "Planned",
    "Rejected",
    "Timed",
    "TorchCpuBackend",
    "Trial",
    "classes",
    "conversion",
    "convolution",
    "execute",
    "format_of",
    "in_format",
    "in_formats",
    "known_rows",
    "make_plan",
    "model_kernels",
    "parse_grid",
    "product",
    "read_grid",
    "shipped",
]
