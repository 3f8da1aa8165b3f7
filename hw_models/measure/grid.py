"""Grids: shapes to measure, in a YAML file.

    name: tiny
    formats: [bf16, w8a8]            # default: all that the runtime has
    products:
      - m: [1, 16]                   # rows of the input: tokens, or samples
        nk: [[256, 256]]             # output features, input features
    convolutions:
      batch: [1, 8]
      layers:
        - {channels: 16, height: 28, out: 32, window: 3, stride: 2}
    conversions:
      - {names: [quantize_fp8], shapes: [[16, 256]]}

``products`` are all m with all (n, k) of an entry. A layer's ``width`` is its height, its padding that of "same" at
stride 1, and its groups and dilation are 1 where nothing else is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ...errors import InvalidInput
from ..kernels import Kernel
from .catalogue import FORMATS, Runtime, conversion, convolution, in_formats, product

Size = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Products(_Part):
    """All m with all (n, k)."""

    m: Annotated[list[Size], Field(min_length=1)]
    nk: Annotated[list[tuple[Size, Size]], Field(min_length=1)]


class Layer(_Part):
    """A convolution, see ``catalogue.convolution``."""

    channels: Size
    height: Size
    width: Size | None = None
    out: Size
    window: Size = 1
    stride: Size = 1
    padding: Annotated[int, Field(ge=0)] | None = None
    groups: Size = 1
    dilation: Size = 1


class Convolutions(_Part):
    """All layers at all batch sizes."""

    batch: Annotated[list[Size], Field(min_length=1)] = [1]
    layers: Annotated[list[Layer], Field(min_length=1)]


class Conversions(_Part):
    """All conversions on all shapes."""

    names: Annotated[list[str], Field(min_length=1)]
    shapes: Annotated[list[list[Size]], Field(min_length=1)]


class GridFile(_Part):
    """What a grid file holds."""

    name: str = ""
    formats: Annotated[list[str], Field(min_length=1)] | None = None
    products: list[Products] = []
    convolutions: Convolutions | None = None
    conversions: list[Conversions] = []

    @field_validator("formats")
    @classmethod
    def _known(cls, names: list[str] | None) -> list[str] | None:
        known = {name for pair in FORMATS.values() for formats in pair for name in formats}
        for name in names or []:
            if name not in known:
                raise ValueError(f"unknown format {name!r}; known: {', '.join(sorted(known))}")
        return names


@dataclass(frozen=True)
class Grid:
    """Shapes to measure.

    Attributes:
        name: of the grid.
        formats: asked for, or ``None`` for all that the runtime has.
        bases: products and convolutions in float32.
        conversions: quantizations, dequantizations, changes of layout.
    """

    name: str
    formats: tuple[str, ...] | None
    bases: tuple[Kernel, ...]
    conversions: tuple[Kernel, ...]

    def kernels(self, device: str, runtime: Runtime, formats: tuple[str, ...] | None = None) -> list[Kernel]:
        """What is to be timed on a device.

        Args:
            device: cpu or cuda.
            runtime: onnxruntime or torch.
            formats: instead of the grid's own.

        Raises:
            InvalidInput: the runtime has none of the formats.
        """
        asked = formats or self.formats
        made = with_formats(self.bases, device, runtime, asked)
        return made + list(self.conversions if runtime == "torch" else ())


def with_formats(
    bases: tuple[Kernel, ...], device: str, runtime: Runtime, asked: tuple[str, ...] | None
) -> list[Kernel]:
    """The kernels of float32 shapes in the formats that are asked, as far as a runtime has them.

    Raises:
        InvalidInput: it has none of them.
    """
    if (device, runtime) not in FORMATS:
        known = ", ".join(f"{device} with {runtime}" for device, runtime in FORMATS)
        raise InvalidInput(f"nothing is timed on {device} with {runtime}; known: {known}")
    products, convolutions = FORMATS[device, runtime]
    if asked is not None and not {*products, *convolutions} & set(asked):
        raise InvalidInput(
            f"{runtime} on {device} has no kernel in {', '.join(asked)}; it has {', '.join(products)}; "
            "give others with --formats"
        )
    made: list[Kernel] = []
    for base in bases:
        offered = convolutions if base.op.startswith("Conv") else products
        made += in_formats([base], [name for name in offered if asked is None or name in asked], runtime)
    return list(dict.fromkeys(made))


def shipped() -> list[str]:
    """The grids that come with the package."""
    folder = files(__package__).joinpath("grids")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def read_grid(given: str | Path) -> Grid:
    """Read a grid.

    Args:
        given: a YAML file, or the name of a grid that comes with the package.

    Raises:
        InvalidInput: there is no such file, or it breaks the schema; one line that says where.
    """
    if str(given) in shipped():
        text = files(__package__).joinpath("grids", f"{given}.yaml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(given).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as cause:
            said = getattr(cause, "strerror", None) or cause
            raise InvalidInput(
                f"cannot read the grid {given}: {said}; give a YAML file, or one of {', '.join(shipped())}"
            ) from None
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as cause:
        mark = getattr(cause, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise InvalidInput(f"grid {given} is not YAML{where}: {getattr(cause, 'problem', None) or cause}") from None
    return parse_grid(content, str(given))


def parse_grid(content: Any, origin: str = "grid") -> Grid:
    """A grid from plain data.

    Raises:
        InvalidInput: the data breaks the schema, or holds no shape.
    """
    try:
        file = GridFile.model_validate(content)
    except ValidationError as cause:
        told = "; ".join(f"{'.'.join(map(str, error['loc'])) or 'grid'}: {error['msg']}" for error in cause.errors())
        raise InvalidInput(f"grid {origin}: {told} (keys: {', '.join(GridFile.model_fields)})") from None
    bases = [product(m, n, k) for part in file.products for n, k in part.nk for m in part.m]
    if file.convolutions is not None:
        for layer in file.convolutions.layers:
            size = {"width": layer.width or layer.height}
            bases += [convolution(batch, **{**layer.model_dump(), **size}) for batch in file.convolutions.batch]
    conversions = [conversion(name, shape) for part in file.conversions for name in part.names for shape in part.shapes]
    if not bases and not conversions:
        raise InvalidInput(f"grid {origin} holds no shape; give products, convolutions or conversions")
    asked = None if file.formats is None else tuple(file.formats)
    return Grid(file.name or origin, asked, tuple(dict.fromkeys(bases)), tuple(dict.fromkeys(conversions)))
