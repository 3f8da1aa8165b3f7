"""The shape of an elastic network: what is fixed (stages, widths), and what a sub-network may choose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from ....architecture import ArchitectureSpace, Dimension
from ....errors import InvalidInput

Activation = Literal["relu", "relu6", "hardswish"]


@dataclass(frozen=True)
class ElasticStage:
    """Inverted bottleneck blocks of one width (Sandler et al., arXiv:1801.04381, section 3.3).

    Attributes:
        width: output channels of every block.
        stride: of the first block; the others have stride 1 and a residual connection.
        depths: how many of the blocks may run, ascending; the network holds as many as the last says.
        kernels: odd sizes of the depthwise convolution, ascending.
        expansions: hidden channels over input channels, ascending.

    Raises:
        InvalidInput: a value that no network can have, or values out of order.
    """

    width: int
    stride: int
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.width < 1 or self.stride not in (1, 2):
            raise InvalidInput(f"a stage needs width >= 1 and stride 1 or 2, got {self.width} and {self.stride}")
        for name in ("depths", "kernels", "expansions"):
            _ascending(name, getattr(self, name))
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise InvalidInput(f"kernels must be odd, got {list(self.kernels)}")


@dataclass(frozen=True)
class ElasticShape:
    """An elastic network: stem, stages, head.

    Attributes:
        stages: from input to output.
        stem: channels of the first convolution (3x3).
        head: channels of the last convolution (1x1), before the mean over the image and the classifier.
        resolutions: heights and widths of square inputs in pixels, ascending.
        channels: of the input images.
        classes: outputs.
        stem_stride: of the first convolution.
        activation: after each convolution but the last of a block.
        eps: of batch normalization.

    Raises:
        InvalidInput: a value that no network can have, or values out of order.
    """

    stages: tuple[ElasticStage, ...]
    stem: int
    head: int
    resolutions: tuple[int, ...]
    channels: int = 1
    classes: int = 10
    stem_stride: int = 2
    activation: Activation = "relu"
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if not self.stages or min(self.stem, self.head, self.channels, self.classes) < 1:
            raise InvalidInput("an elastic network needs a stage, and channels and classes of at least 1")
        if self.stem_stride not in (1, 2) or self.activation not in ("relu", "relu6", "hardswish"):
            raise InvalidInput(
                f"stem_stride is 1 or 2 and activation relu, relu6 or hardswish, got {self.stem_stride} and "
                f"{self.activation!r}"
            )
        _ascending("resolutions", self.resolutions)

    def scaled(self, width: float, divisor: int = 8) -> ElasticShape:
        """The same shape with all channels multiplied by ``width`` and rounded to ``divisor`` (at least one of it).

        Raises:
            InvalidInput: the width is not positive.
        """
        if not width > 0:
            raise InvalidInput(f"width multiplies the channels and must be positive, got {width}")
        if width == 1:
            return self

        def channels(count: int) -> int:
            return max(divisor, round(count * width / divisor) * divisor)

        stages = tuple(replace(stage, width=channels(stage.width)) for stage in self.stages)
        return replace(self, stages=stages, stem=channels(self.stem), head=channels(self.head))

    def blocks(self) -> Iterator[BlockShape]:
        """Every block that the network holds, from input to output."""
        inputs = self.stem
        for number, stage in enumerate(self.stages, start=1):
            for position in range(1, stage.depths[-1] + 1):
                yield BlockShape(number, position, inputs, stage, stage.stride if position == 1 else 1)
                inputs = stage.width

    @cached_property
    def architecture(self) -> ArchitectureSpace:
        """``resolution``, ``stageS.depth``, and for blocks that run ``stageS.blockB.kernel`` and ``.expansion``."""
        found = [Dimension("resolution", "resolution", self.resolutions)]
        found += [Dimension(f"stage{n}.depth", "depth", stage.depths) for n, stage in enumerate(self.stages, start=1)]
        for block in self.blocks():
            deep = tuple(depth for depth in block.stage.depths if depth >= block.position)
            when = () if deep == block.stage.depths else ((f"stage{block.number}.depth", deep),)
            found.append(Dimension(f"{block.name}.kernel", "kernel", block.stage.kernels, when))
            found.append(Dimension(f"{block.name}.expansion", "expansion", block.stage.expansions, when))
        return ArchitectureSpace(tuple(found))


@dataclass(frozen=True)
class BlockShape:
    """One block of a shape.

    Attributes:
        number: of its stage, from 1.
        position: in its stage, from 1.
        inputs: input channels.
        stage: its stage.
        stride: of the depthwise convolution.
    """

    number: int
    position: int
    inputs: int
    stage: ElasticStage
    stride: int

    @property
    def name(self) -> str:
        """``stageS.blockB``: the module path, and the beginning of the names of its dimensions."""
        return f"stage{self.number}.block{self.position}"

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output: wherever the shapes allow it."""
        return self.stride == 1 and self.inputs == self.stage.width

    def hidden(self, expansion: int) -> int:
        """Channels of the depthwise convolution."""
        return self.inputs * expansion


def _ascending(name: str, values: tuple[int, ...]) -> None:
    if not values or values[0] < 1 or list(values) != sorted(set(values)):
        raise InvalidInput(f"{name} must be ascending whole numbers from 1 on, got {list(values)}")
