"""The state in which ``torch.export`` traces a model for a target."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..evaluators import in_eval
from ..tracing import without_attention_fast_path


@contextmanager
def traced_quietly(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, without gradients, fused attention paths and the tracer's warnings."""
    with warnings.catch_warnings(), in_eval(model), without_attention_fast_path(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield
