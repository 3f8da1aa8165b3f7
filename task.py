"""Task: a model, its calibration and validation data, and how its quality is judged."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .errors import InvalidInput
from .fingerprint import fingerprint, without_addresses

if TYPE_CHECKING:
    from torch import Tensor, nn

#: The metrics by name; ``top5`` stands for every ``topK``. ``evaluators/metrics.py`` defines them.
QUALITIES = ("kl", "loss", "accuracy", "top5", "perplexity", "relative_error", "cosine")
#: Metrics that compare with the float model's own outputs and need no targets.
SELF_REFERENCED = ("kl", "relative_error", "cosine")
Split = Literal["calibration", "validation", "holdout"]
SPLITS: tuple[Split, ...] = ("calibration", "validation", "holdout")


@dataclass(frozen=True)
class Batch:
    """One batch: the inputs of a forward pass and, where there are labels, the targets.

    Attributes:
        inputs: positional arguments of the model (a tuple of tensors), or keyword arguments (a dict).
        targets: tensor of labels whose first dimension is the batch, or ``None``.
    """

    inputs: tuple[Tensor, ...] | dict[str, Tensor]
    targets: Tensor | None = None

    @staticmethod
    def of(item: Any) -> Batch:
        """Read one batch as users write it.

        A pair is always ``(inputs, targets)``; ``inputs`` is a tensor, a tuple or a dict of tensors. A model with
        two positional inputs and no targets is written ``((a, b), None)``.

        Raises:
            InvalidInput: the item has none of these forms.
        """
        import torch

        if isinstance(item, Batch):
            return item
        inputs, targets = item, None
        if isinstance(item, (tuple, list)) and len(item) == 2:
            inputs, targets = item
        if targets is not None and not isinstance(targets, torch.Tensor):
            raise InvalidInput(f"targets must be a tensor or None, got {type(targets).__name__}")
        if isinstance(inputs, torch.Tensor):
            return Batch((inputs,), targets)
        if isinstance(inputs, Mapping) and inputs and all(isinstance(value, torch.Tensor) for value in inputs.values()):
            return Batch(dict(inputs), targets)
        if isinstance(inputs, (tuple, list)) and inputs and all(isinstance(value, torch.Tensor) for value in inputs):
            return Batch(tuple(inputs), targets)
        raise InvalidInput(
            "a batch is (inputs, targets) or inputs, inputs a tensor, tuple or dict of tensors; "
            f"got {type(item).__name__}"
        )

    def __call__(self, model: nn.Module) -> Any:
        """Run the model on this batch."""
        return model(**self.inputs) if isinstance(self.inputs, dict) else model(*self.inputs)

    def piece(self, start: int, stop: int) -> Batch:
        """The samples ``start`` to ``stop`` of the batch."""
        targets = None if self.targets is None else self.targets[start:stop]
        if isinstance(self.inputs, dict):
            return Batch({name: tensor[start:stop] for name, tensor in self.inputs.items()}, targets)
        return Batch(tuple(tensor[start:stop] for tensor in self.inputs), targets)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The input tensors by name (their position for positional ones)."""
        if isinstance(self.inputs, dict):
            return self.inputs
        return {str(position): tensor for position, tensor in enumerate(self.inputs)}

    def __len__(self) -> int:
        """Samples in the batch: the first dimension of the first input."""
        first = next(iter(self.tensors.values()))
        return int(first.shape[0]) if first.ndim else 1


class Task:
    """A model, the data that judges it, and the metric.

    Args:
        model: any ``nn.Module``; it is put in evaluation mode, where it stays, and its weights are never changed for
            good. Evaluators run it in evaluation mode also if ``train()`` is called later.
        calibration: batches that scoring and calibration may see. A batch is ``(inputs, targets)`` or inputs;
            inputs a tensor, a tuple or a dict of tensors (see ``Batch.of``).
        validation: batches on which candidates are measured during a search.
        holdout: batches on which the survivors are judged at the end and which the search never sees. Without
            it the second half of the validation batches is set apart for that.
        loss: ``loss(outputs, targets) -> scalar`` (mean over the samples), for proxies that need gradients and for
            ``quality="loss"``; ``None`` means cross-entropy with integer targets, and the KL divergence to the
            float model's own outputs where there are no targets.
        quality: ``"kl"`` | ``"loss"`` | ``"accuracy"`` | ``"top5"`` (any ``"topK"``) | ``"perplexity"`` |
            ``"relative_error"`` | ``"cosine"``, or a callable ``(outputs, targets) -> tensor [samples]``. Lower is
            always better; ``"accuracy"`` and ``"top5"`` are stored as errors, ``"cosine"`` as distance.
        name: shown in reports.

    Raises:
        InvalidInput: no data, unknown quality, targets missing where the quality needs them, or batches whose
            shapes or types do not fit each other.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        calibration: Iterable[Any],
        validation: Iterable[Any],
        holdout: Iterable[Any] | None = None,
        loss: Callable[[Any, Any], Tensor] | None = None,
        quality: str | Callable[[Any, Any], Tensor] = "kl",
        name: str = "",
    ) -> None:
        from torch import nn

        if not isinstance(model, nn.Module):
            raise InvalidInput(f"the model must be a torch.nn.Module, got {type(model).__name__}")
        if not callable(quality) and quality not in QUALITIES and top_k(quality) is None:
            near = difflib.get_close_matches(str(quality), QUALITIES, n=1) or QUALITIES
            raise InvalidInput(f"unknown quality {quality!r}; choose {' or '.join(near)}, or give a callable")
        if loss is not None and not callable(loss):
            raise InvalidInput(f"loss must be a callable (outputs, targets) -> scalar, got {type(loss).__name__}")
        self.model = model.eval()
        self.loss = loss
        self.quality = quality
        self.name = name or type(model).__name__
        self.calibration = _batches("calibration", calibration)
        self.validation = _batches("validation", validation)
        if holdout is None:
            half = (len(self.validation) + 1) // 2
            if 0 < half == len(self.validation):
                raise InvalidInput(
                    "validation needs at least two batches, because its second half is kept from the search; "
                    "give more batches or a holdout of its own"
                )
            self.validation, self.holdout = self.validation[:half], self.validation[half:]
        else:
            self.holdout = _batches("holdout", holdout)
        self._check()

    def split(self, name: Split) -> list[Batch]:
        """The batches of one split.

        Raises:
            InvalidInput: there is no such split.
        """
        if name not in SPLITS:
            raise InvalidInput(f"unknown split {name!r}; choose {' or '.join(map(repr, SPLITS))}")
        batches: list[Batch] = getattr(self, name)
        return batches

    def samples(self, name: Split) -> int:
        """How many samples a split holds."""
        return sum(len(batch) for batch in self.split(name))

    @property
    def metric(self) -> str:
        """Name of the stored metric."""
        if callable(self.quality):
            name = getattr(self.quality, "__name__", type(self.quality).__name__)
            return (
                f"custom_{name}" if name in {*QUALITIES, "error"} else name
            )  # a name says how values are put together
        if top_k(self.quality) is not None:
            return f"{self.quality}_error"
        return "error" if self.quality == "accuracy" else self.quality

    def digest(self, *splits: Split) -> str:
        """Content hash of the model, the metric and the data of the given splits (sha256, 16 hex digits).

        The model is its weights, its buffers, what its layers print of themselves, the code of ``forward`` of classes
        outside PyTorch, and the hooks that it carries; a metric or loss of the user's own is its code and the plain
        values that it holds. Functions that such code calls by their global name are not followed.
        """
        content = hashlib.sha256()
        content.update(f"{type(self.model).__qualname__}|{self.metric}".encode())
        if callable(self.quality):
            content.update(fingerprint(self.quality).encode())
        if self.loss is not None and self.quality not in SELF_REFERENCED:
            content.update(fingerprint(self.loss).encode())
        codes: dict[type, str] = {}
        for name, module in self.model.named_modules():
            kind = type(module)
            if kind not in codes:
                codes[kind] = "" if kind.__module__.startswith("torch.nn.") else fingerprint(kind.forward)
            hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
            held = "".join(map(fingerprint, hooks))
            told = without_addresses(module.extra_repr())
            content.update(f"{name}|{kind.__qualname__}|{codes[kind]}|{held}|{told}".encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            _update(content, name, tensor)
        for split in splits:
            for position, batch in enumerate(self.split(split)):
                for name, tensor in sorted(batch.tensors.items()):
                    _update(content, f"{split}/{position}/{name}", tensor)
                if batch.targets is not None:
                    _update(content, f"{split}/{position}/targets", batch.targets)
        return content.hexdigest()[:16]

    def _check(self) -> None:
        import torch

        for split in SPLITS:
            batches = self.split(split)
            if not batches:
                raise InvalidInput(f"the {split} data is empty; give at least one batch")
            expected = _signature(self.calibration[0])
            for position, batch in enumerate(batches):
                if not len(batch):
                    raise InvalidInput(f"{split} batch {position} has no samples; leave it out")
                if _signature(batch) != expected:
                    raise InvalidInput(
                        f"{split} batch {position} has inputs {_signature(batch)}, calibration batch 0 has {expected}; "
                        "names, types and numbers of dimensions must agree"
                    )
                for name, tensor in batch.tensors.items():
                    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                        raise InvalidInput(f"{split} batch {position}, input {name}: holds NaN or infinity")
                if batch.targets is not None and batch.targets.shape[:1] != (len(batch),):
                    raise InvalidInput(
                        f"{split} batch {position} has {len(batch)} samples and targets of shape "
                        f"{tuple(batch.targets.shape)}; their first dimensions must agree"
                    )
        if not callable(self.quality) and self.quality not in SELF_REFERENCED:
            for split in SPLITS[1:]:
                if any(batch.targets is None for batch in self.split(split)):
                    raise InvalidInput(f"quality {self.quality!r} needs targets, and the {split} data has none")


def top_k(quality: object) -> int | None:
    """The k of a quality ``"topK"`` (``"top5"``: 5); ``None`` for every other quality."""
    found = re.fullmatch(r"top([1-9][0-9]*)", quality) if isinstance(quality, str) else None
    return int(found[1]) if found else None


def _signature(batch: Batch) -> str:
    """What must agree between batches: input names, types, and numbers of dimensions (lengths may differ)."""
    parts = (
        f"{name}: {tensor.ndim}-d {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in sorted(batch.tensors.items())
    )
    return "{" + ", ".join(parts) + "}"


def _batches(split: str, data: Iterable[Any]) -> list[Batch]:
    """The batches of one split.

    Raises:
        InvalidInput: not an iterable of batches, but for example one batch.
    """
    import torch

    if isinstance(data, (torch.Tensor, Mapping, Batch, str)) or not isinstance(data, Iterable):
        raise InvalidInput(f"{split} must be a list (or another iterable) of batches, got {type(data).__name__}")
    return [Batch.of(item) for item in data]


def _update(content: Any, name: str, tensor: Any) -> None:
    import torch

    if not isinstance(tensor, torch.Tensor):  # the extra state of a module
        content.update(f"{name}|{without_addresses(repr(tensor))}".encode())
        return
    content.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    content.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
