"""The elastic supernet as a family of architectures: choices in, a plain module with its own statistics out."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from ....architecture import ArchitectureSpace, Choices
from ....errors import InvalidInput
from ....zoo.entry import Progress
from ....zoo.fold import fold_batch_norm
from ....zoo.labelled import Images
from ....zoo.weights_cache import cached, default_folder, recipe_digest
from .network import ElasticNet
from .presets import batches_of, preset
from .recipe import ElasticRecipe
from .statistics import recalibrated
from .training import train


class ElasticFamily:
    """Sub-networks of a trained supernet.

    Args:
        net: trained; it is copied, so that later changes do not change the family.
        calibration: batches of images [B, C, H, W] for batch-norm statistics; none keeps the shared ones.
        fold: fold batch normalization into the convolutions, as a runtime does.
        name: for records.

    Attributes:
        name: for records.
        architecture: resolution, depths of stages, kernels and expansions of blocks.
        net: the copy.
    """

    def __init__(
        self, net: ElasticNet, calibration: Sequence[torch.Tensor] = (), *, fold: bool = False, name: str = "elastic"
    ) -> None:
        self.name = name
        self.architecture: ArchitectureSpace = net.architecture
        self.net = copy.deepcopy(net).eval()
        self._calibration = tuple(calibration)
        self._fold = fold

    def build(self, choices: Choices) -> nn.Module:
        """The sub-network as a plain module in evaluation mode, the same for the same choices.

        Raises:
            InvalidInput: the choices are not of this architecture.
        """
        plain = self.net.cut(choices)
        if self._calibration:
            recalibrated(plain, self._calibration, self.resolution(choices))
        return fold_batch_norm(plain) if self._fold else plain

    def resolution(self, choices: Choices) -> int:
        """Height and width in pixels that inputs must be resized to (``resized``)."""
        return int(choices["resolution"])

    @cached_property
    def digest(self) -> str:
        """Content hash of shape, weights, statistics, calibration images and folding (16 hex digits)."""
        text = json.dumps([asdict(self.net.shape), self._fold, self.name], sort_keys=True)
        found = hashlib.sha256(text.encode())
        state = {**self.net.state_dict(), **{str(n): batch for n, batch in enumerate(self._calibration)}}
        for key, value in state.items():
            array = value.detach().cpu().contiguous().numpy()
            found.update(f"{key} {array.dtype} {array.shape}".encode())
            found.update(array.tobytes())
        return found.hexdigest()[:16]


def elastic_family(
    name: str = "fashion",
    *,
    width: float = 1.0,
    seed: int = 0,
    calibration: int = 512,
    fold: bool = False,
    weights: str | Path | None = None,
    cache: str | Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> ElasticFamily:
    """A supernet that ships, trained on the first call and read from the cache of the zoo's weights afterwards.

    A training that was killed goes on from its checkpoint in the same folder.

    Args:
        name: ``fashion`` (Fashion-MNIST, ten minutes of one core) or ``digits`` (scikit-learn's, seconds).
        width: multiplies all channels.
        seed: of the training.
        calibration: training images for the batch-norm statistics of a sub-network; 0 keeps the supernet's.
        fold: fold batch normalization into the convolutions.
        weights: safetensors file to read instead of training, such as ``save_weights`` wrote.
        cache: folder of weights; ``None`` is the zoo's.
        device: that it is trained on; the family is on the CPU.
        progress: told (steps done, steps in all, loss) while it is trained.

    Raises:
        InvalidInput: unknown name, width or number out of range, data that are not installed, or weights of another
            shape.
    """
    found = preset(name)
    recipe = found.recipe(width, seed)
    if calibration < 0:
        raise InvalidInput(f"calibration is a number of images, 0 or more, got {calibration}")
    net = ElasticNet(recipe.shape, seed=seed)
    if weights is not None:
        load_weights(net, weights)
    else:
        folder = default_folder() if cache is None else Path(cache)
        cached(net, recipe.cache_key(), lambda model: _train(model, recipe, folder, device, progress), folder)
    images = found.data()[0].inputs
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:calibration]
    batches = [images[order[start : start + 64]] for start in range(0, calibration, 64)]
    return ElasticFamily(net, batches, fold=fold, name=f"elastic/{name}")


def save_weights(net: ElasticNet, path: str | Path) -> None:
    """Write weights and statistics as safetensors (to the side, synced, renamed)."""
    from safetensors.torch import save_file

    from ....files import replacing

    with replacing(path) as side:
        save_file({key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}, side)


def load_weights(net: ElasticNet, path: str | Path) -> None:
    """Give a supernet the weights of a file.

    Raises:
        InvalidInput: the file is missing, cannot be read or is of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        net.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as cause:
        raise InvalidInput(f"cannot read the supernet's weights {path}: {cause}") from None
    except RuntimeError as cause:
        reason = str(cause).splitlines()[-1].strip()
        raise InvalidInput(
            f"the weights {path} are of another supernet ({reason}); give the file of this shape"
        ) from None


def _train(net: ElasticNet, recipe: ElasticRecipe, folder: Path, device: str, progress: Progress | None) -> None:
    data: tuple[Images, Images] = preset(recipe.name).data()
    key = recipe.cache_key()
    checkpoint = folder / f"{key.name}-{recipe_digest(key)[:20]}.checkpoint"
    train(net.to(device), recipe, batches_of(data[0], recipe.batch), checkpoint=checkpoint, progress=progress)
    net.cpu()
    checkpoint.unlink(missing_ok=True)  # another process may have trained the same
