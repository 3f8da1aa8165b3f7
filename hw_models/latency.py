"""Latency: measured on this machine's CPU, or by the roofline of a named device."""

from __future__ import annotations

from ..space import SearchSpace
from .cost_model import Question
from .devices import device
from .prices import PriceTable


def latency_ms(space: SearchSpace, question: Question) -> PriceTable:
    """Milliseconds of one forward pass; ``source`` says whether they were measured or come from a roofline.

    Raises:
        InvalidInput: unknown device, or onnxruntime is missing.
        NotMeasured: a format has no kernel on the device.
    """
    if question.device == "cpu":
        from .measured import cpu_latency

        return cpu_latency(space, question)
    from .roofline import roofline_latency

    return roofline_latency(space, device(question.device), question.batch)


def planned_steps(space: SearchSpace, question: Question) -> int:
    """Steps of a progress bar for this question: 0 where nothing is timed."""
    if question.device != "cpu":
        device(question.device)
        return 0
    from .measured import planned_steps as steps

    return steps(space, question)
