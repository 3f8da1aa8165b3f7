"""Weights that the zoo trained itself, kept on disk under the digest of the recipe that made them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from .training import Recipe

M = TypeVar("M", bound=nn.Module)


def default_folder() -> Path:
    """$BITFRONT_CACHE, or ~/.cache/bitfront/zoo."""
    named = os.environ.get("BITFRONT_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "bitfront" / "zoo"


def recipe_digest(recipe: Recipe) -> str:
    """SHA-256 over the recipe's class and all of its fields, as canonical JSON."""
    content: dict[str, Any] = {"recipe": type(recipe).__name__, **asdict(recipe)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def cached(model: M, recipe: Recipe, train: Callable[[M], None], folder: Path | None = None) -> M:
    """Give `model` the weights of `recipe`: from the cache, or by training and then storing them.

    A file appears under its final name only when it is complete (temporary file, fsync, rename), so processes that
    train the same recipe at the same time overwrite each other with whole files. A file that cannot be read, or that
    does not fit the model, is replaced.

    Args:
        model: Untrained; changed in place.
        recipe: What determines the weights, data digest included.
        train: Trains the model in place.
        folder: The cache; None is `default_folder()`.

    Returns:
        `model`, in eval mode.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save

    folder = default_folder() if folder is None else folder
    path = folder / f"{recipe.name}-{recipe_digest(recipe)[:20]}.safetensors"
    if path.is_file():
        try:
            model.load_state_dict(load_file(path))
            return model.eval()
        except (SafetensorError, RuntimeError):
            path.unlink(missing_ok=True)
    train(model)
    folder.mkdir(parents=True, exist_ok=True)
    content: bytes = save({key: value.contiguous() for key, value in model.state_dict().items()})
    _write_whole(path, content)
    return model.eval()


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is never seen incomplete, not even after a power failure."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.stem}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
