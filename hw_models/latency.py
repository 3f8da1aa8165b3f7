"""Latency: measured on this machine's CPU, from the tables of a named GPU, or by its roofline.

A named GPU is priced by its measured tables. A format that they do not have is refused, not guessed. The roofline of
the data sheet answers only where nothing was measured on the device, or when it is asked for (``runtime="roofline"``).
"""

from __future__ import annotations

from ..space import SearchSpace
from .cost_model import Question
from .devices import device
from .prices import PriceTable

#: The runtime to ask for in order to get the data sheet's bound on a device that has tables.
ROOFLINE = "roofline"


def latency_ms(space: SearchSpace, question: Question) -> PriceTable:
    """Milliseconds of one forward pass; ``source`` says how they are known.

    Raises:
        InvalidInput: unknown device or runtime, or a package that is needed is missing.
        NotMeasured: a format has no kernel or no measurement on the device.
    """
    if question.device == "cpu":
        from .measured import cpu_latency

        return cpu_latency(space, question)
    if uses_roofline(question):
        from .roofline import roofline_latency

        return roofline_latency(space, device(question.device), question.batch, _why(question))
    from .gpu import gpu_latency

    return gpu_latency(space, question)


def uses_roofline(question: Question) -> bool:
    """Whether a named GPU is priced by its data sheet: asked for, or no runtime named and nothing measured there.

    Raises:
        InvalidInput: unknown device.
    """
    from .gpu import has_tables

    known = device(question.device)
    return question.runtime == ROOFLINE or (question.runtime is None and not has_tables(known.name))


def latency_inputs(name: str, runtime: str | None = None) -> list[str]:
    """What the latency of a named GPU follows from beside the space and the code: data sheet, tables, predictor.

    Args:
        name: in ``devices()``; not the cpu, whose kernels are rows of their own.
        runtime: as in ``price``.

    Raises:
        InvalidInput: unknown device.
        NotMeasured: no table has products of the device in the runtime.
    """
    sheet = str(device(name))
    if uses_roofline(Question(name, runtime=runtime)):
        return [sheet]
    from .gpu.gpu_latency import RECIPE
    from .predictor.kept import RECIPE as FIT
    from .tables import answering

    tables = [f"{kernel} {info.digest}" for kernel, info in answering(name, runtime).items()]
    return [sheet, f"assembly {RECIPE}, predictor {FIT}", *tables]


def _why(question: Question) -> str:
    """Why a data sheet answers and no table."""
    if question.runtime == ROOFLINE:
        return "as asked"
    from .tables.aiconfigurator import installed_version

    advice = "" if installed_version() else "; measured tables of server GPUs: pip install 'bitfront[nvidia]'"
    return f"no table of this device is installed{advice}"


def planned_steps(space: SearchSpace, question: Question) -> int:
    """Steps of a progress bar for this question: 0 where nothing is timed."""
    if question.device != "cpu":
        device(question.device)
        return 0
    from .measured import planned_steps as steps

    return steps(space, question)
