"""The loop over calibration samples that gradient proxies share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from .likelihood import Source, check_softmax
from .second_order import differentiated_twice

if TYPE_CHECKING:
    from ..task import Batch, Task
    from .recording import Pass, Recorder
    from .sensitivity import Advance


def over_passes(
    task: Task,
    recorder: Recorder,
    batches: Sequence[Batch],
    proxy: str,
    source: Source,
    seen: Callable[[int, Pass], None],
    advance: Advance | None,
    *,
    twice: bool = False,
) -> None:
    """Run forward batch by batch, with gradients on.

    Args:
        task: the objective.
        recorder: runs the model.
        batches: data, often single samples.
        proxy: name, for messages.
        source: where gradients at the outputs come from; other than the labels of the data, it must suit the loss.
        seen: gets the position of every batch and its pass, whose graph lives as long as the call.
        advance: called with 1 after every batch.
        twice: whether derivatives are to be differentiated themselves.

    Raises:
        InvalidInput: the task has a loss of its own that is not the cross-entropy of the outputs, and gradients are
            drawn from the model.
        UnsupportedModel: the model cannot run with gradients on.
    """
    for position, batch in enumerate(batches):
        with ExitStack() as stack:
            if twice:
                stack.enter_context(differentiated_twice())
            run = stack.enter_context(recorder.run(batch))
            if source != "data" and position == 0:
                check_softmax(task, run.output, run.targets, proxy)
            seen(position, run)
        if advance:
            advance(1)
