"""From a job to what a search needs: the task and the space."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import zoo
from ..errors import InvalidInput
from ..evaluators import prepared
from ..exporters import get as get_target
from ..exporters import restricted
from ..hw_models.tables import answering
from ..search.stage import Ledger
from ..search.stages import traced
from ..space import SearchSpace
from ..store import Store
from ..task import SPLITS, Batch, Task
from .architectures import load_state
from .job import Job
from .locations import inside, opened
from .uploads import fetch_tables, with_uploads

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Assembled:
    """A job made real.

    Attributes:
        task: model (equalized where the job asks for it), data, metric.
        space: sites, formats, ties.
        example: a batch of inputs for export.
        plain: the task before any equalization, for a job that compares recipes.
        notes: what the export target took away from the space, one sentence each.
    """

    task: Task
    space: SearchSpace
    example: Any
    plain: Task
    notes: tuple[str, ...] = ()


def assemble(
    job: Job,
    folder: Path,
    progress: Callable[[int, int, float], None] | None = None,
    *,
    store: Store | None = None,
    ledger: Ledger | None = None,
) -> Assembled:
    """Load the model and the data of a job and find its sites.

    Args:
        job: what is asked.
        folder: where relative paths start.
        progress: told about the training steps of a zoo entry that is trained on first use.
        store: where the space is kept, so that a known model is not traced again; ``None``: it is traced.
        ledger: is told what was reused.

    Returns:
        Task, space, example inputs.

    Raises:
        InvalidInput: a file, entry or function is missing or unfit; the message says which.
        UnsupportedModel: the model fails on the data, or has nothing to quantize.
        NotMeasured: the job requires measured tables of its device, and there are none.
    """
    task, example = task_of(job, folder, progress, store=store)
    asked = (job.space.formats, job.space.exclude, job.space.ties)
    if store is None:
        space = SearchSpace.from_model(task.model, task.calibration[0].piece(0, 2), *asked)
    else:
        space = traced(task, *asked, store, ledger=ledger)
    space, notes = for_target(job, space)
    return Assembled(prepared(task, space, job.quantization.recipe), space, example, task, notes)


def task_of(
    job: Job,
    folder: Path,
    progress: Callable[[int, int, float], None] | None = None,
    *,
    store: Store | None = None,
) -> tuple[Task, Any]:
    """Model, data and metric of a job, and example inputs; arguments and errors as for ``assemble``."""
    if store is not None:
        job = with_uploads(job, store)
        if job.device.name != "cpu":
            fetch_tables(store, job.device.name)
    if job.device.tables == "required" and job.device.name != "cpu":
        answering(job.device.name, job.device.runtime)
    entry = _zoo_data(job, progress)
    if entry is not None:
        splits: dict[str, Any] = {name: getattr(entry, name) for name in SPLITS}
    else:
        splits = {name: _npz(job, folder, name) for name in SPLITS}
    model = _model(job, folder, entry, splits)
    quality = job.quality or (entry.quality if entry else "kl")
    task = Task(
        model,
        calibration=splits["calibration"],
        validation=splits["validation"],
        holdout=splits["holdout"],
        loss=entry.loss if entry is not None else None,
        quality=quality,
        name=job.title,
    )
    return task, entry.example_inputs if entry is not None else task.calibration[0].piece(0, 2).inputs


def for_target(job: Job, space: SearchSpace) -> tuple[SearchSpace, tuple[str, ...]]:
    """The space without what the export target cannot load, and what was taken away."""
    if job.export is None:
        return space, ()
    found = restricted(space, get_target(job.export.target), job.export.generation)
    return found.space, found.notes


def _zoo_data(job: Job, progress: Callable[[int, int, float], None] | None) -> zoo.ZooEntry | None:
    """The zoo entry whose data is used, or ``None`` when the job names files."""
    files = [name for name in SPLITS if isinstance(getattr(job.data, name), str)]
    name = job.data.zoo or (job.model.zoo if not files else None)
    if name is None:
        return None
    if files:
        raise InvalidInput(f"data.{files[0]} is a file while data.zoo is given; with zoo data give numbers of samples")
    sizes = {split: getattr(job.data, split) for split in SPLITS}
    return zoo.load(name, **sizes, seed=job.search.seed, progress=progress)


def _model(job: Job, folder: Path, entry: zoo.ZooEntry | None, splits: dict[str, Any]) -> nn.Module:
    """The model from where the job says; ``splits``: the data that an exported program is checked on."""
    asked = job.model
    if asked.zoo is not None:
        return entry.model if entry is not None and entry.name == asked.zoo else zoo.load(asked.zoo).model
    if asked.exported is not None:
        from .exported_model import load_exported

        batches = [Batch.of(batch) for split in splits.values() for batch in split or ()]
        with opened(inside(folder, asked.exported), "model.exported") as stream:
            return load_exported(stream, "model.exported", batches)
    if asked.architecture is not None:
        from .architectures import architecture

        assert asked.weights is not None
        return architecture(asked.architecture, asked.arguments, _state(inside(folder, asked.weights), pickled=False))
    return _from_factory(job, folder)


def imported(reference: str, folder: Path, what: str) -> Any:
    """A function of the user's own, ``package.module:function``, also for the workers of this process.

    Raises:
        InvalidInput: no such module or function.
    """
    module_name, function_name = reference.split(":")
    for path in (str(folder), os.getcwd()):
        if path not in sys.path:
            sys.path.insert(0, path)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(folder), os.getcwd(), *_python_path()]))
    try:
        return getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as cause:
        raise InvalidInput(
            f"{what}: no module {cause.name!r} (looked in {folder}, the current folder and installed packages)"
        ) from cause
    except AttributeError:
        raise InvalidInput(f"{what}: module {module_name!r} has no {function_name!r}") from None


def _from_factory(job: Job, folder: Path) -> nn.Module:
    """Import the factory, call it, load weights."""
    from torch import nn

    assert job.model.factory is not None
    model = imported(job.model.factory, folder, "model.factory")(**job.model.arguments)
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"model.factory {job.model.factory!r} returned {type(model).__name__}, not an nn.Module")
    if job.model.weights is not None:
        location = inside(folder, job.model.weights)
        load_state(model, _state(location, pickled=True), location.rpartition("/")[2])
    return model


def _python_path() -> list[str]:
    return [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]


def _state(location: str, *, pickled: bool) -> Any:
    """A state dict from safetensors or, where that is allowed, a tensors-only checkpoint; nothing is run."""
    import torch

    if not pickled and not location.endswith(".safetensors"):
        raise InvalidInput(f"model.weights: {location} must be a .safetensors file")
    with opened(location, "model.weights") as stream:
        content = stream.read()
    try:
        if location.endswith(".safetensors"):
            from safetensors.torch import load

            return load(content)
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as cause:
        first = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise InvalidInput(
            f"model.weights: {location} holds no plain tensors ({first}); save a state dict as safetensors"
        ) from cause


def _npz(job: Job, folder: Path, split: str) -> list[tuple[Any, torch.Tensor | None]] | None:
    """The batches of one split from an ``.npz`` file."""
    import torch

    given = getattr(job.data, split)
    if given is None:
        if split == "holdout":
            return None
        raise InvalidInput(f"data.{split} is missing; give an .npz file with an array 'inputs'")
    if isinstance(given, int):
        raise InvalidInput(f"data.{split} is a number of samples, which only zoo data takes; give an .npz file")
    path = inside(folder, given)
    try:
        with opened(path, f"data.{split}") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: torch.from_numpy(file[name].copy()) for name in file.files}
    except InvalidInput:
        raise
    except (ValueError, OSError, TypeError, EOFError) as cause:
        raise InvalidInput(f"data.{split}: {path} is not an .npz of plain arrays: {cause}") from None
    targets = arrays.pop("targets", None)
    if not arrays:
        raise InvalidInput(f"data.{split}: {path} holds no array 'inputs'")
    lengths = {
        name: len(array) for name, array in {**arrays, **({} if targets is None else {"targets": targets})}.items()
    }
    if len(set(lengths.values())) > 1:
        raise InvalidInput(f"data.{split}: arrays of different lengths in {path}: {lengths}")
    inputs: Any = arrays["inputs"] if set(arrays) == {"inputs"} else arrays
    step = job.data.batch
    batches: list[tuple[Any, torch.Tensor | None]] = []
    for start in range(0, next(iter(lengths.values())), step):
        stop = start + step
        piece = inputs[start:stop] if not isinstance(inputs, dict) else {k: v[start:stop] for k, v in inputs.items()}
        batches.append((piece, None if targets is None else targets[start:stop]))
    return batches
