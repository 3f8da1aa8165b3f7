"""Whether a file that was sent is what it says, found out without loading it."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import InvalidInput

_MOST_ARRAYS = 64
_MOST_ROWS = 5_000_000
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


def check_weights(path: Path, name: str, limit: int) -> dict[str, Any]:
    """The number of tensors and of their elements in a safetensors file.

    Raises:
        InvalidInput: its header is none, or does not fit its length.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
    except (SafetensorError, OverflowError) as cause:
        pickled = path.open("rb").read(4).startswith(_PICKLES)
        why = "it is a pickle or a zip, which can run code" if pickled else " ".join(str(cause).split())[:200]
        raise InvalidInput(f"{name} is no safetensors file ({why}); save the state dict with safetensors") from None
    if not shapes:
        raise InvalidInput(f"{name} holds no tensor")
    return {"tensors": len(shapes), "elements": sum(math.prod(shape) for shape in shapes)}


def check_exported(path: Path, name: str, limit: int) -> dict[str, Any]:
    """The number of tensors and operators of an exported program.

    Raises:
        InvalidInput: as ``exported_archive.check_archive``.
    """
    from .exported_archive import check_archive

    with path.open("rb") as stream:
        found = check_archive(stream, name)
    nodes = found.program["graph_module"]["graph"]["nodes"]
    return {"tensors": len(found.weights["config"]), "operators": len(nodes)}


def check_data(path: Path, name: str, limit: int) -> dict[str, Any]:
    """The shapes and types of the arrays of an ``.npz`` file.

    Raises:
        InvalidInput: it is none, holds objects, or unpacks to more than ``limit`` bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if not 0 < len(members) <= _MOST_ARRAYS:
                raise InvalidInput(f"{name}: {len(members)} arrays; expected 1 to {_MOST_ARRAYS}")
            if sum(member.file_size for member in members) > limit:
                raise InvalidInput(f"{name}: unpacks to more than {limit} bytes")
            return {"arrays": dict(_array(archive, member, name) for member in members)}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, UnicodeDecodeError) as cause:
        raise InvalidInput(f"{name} is no .npz file: {' '.join(str(cause).split())[:200]}") from None


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> tuple[str, dict[str, Any]]:
    """Name, shape and type of one array, from its header."""
    array = member.filename.removesuffix(".npy")
    if array == member.filename or not array.isidentifier():
        raise InvalidInput(f"{name}: the member {member.filename[:80]!r} is no array; save with numpy.savez(inputs=…)")
    with archive.open(member) as file:
        try:
            shape, kind = _header(file)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as cause:
            told = " ".join(str(cause).split())[:120]
            raise InvalidInput(f"{name}: {array} is no array ({told}); save with numpy.savez(inputs=…)") from None
        start = file.tell()
    if kind.hasobject or kind.kind not in "biuf":
        why = "its objects are pickled, which can run code" if kind.hasobject else f"its type is {kind}"
        raise InvalidInput(f"{name}: {array} holds no plain numbers ({why})")
    if any(size < 0 for size in shape) or start + math.prod(shape) * kind.itemsize != member.file_size:
        raise InvalidInput(f"{name}: {array} says it has the shape {list(shape)}, which its length is not that of")
    return array, {"shape": list(shape), "type": str(kind)}


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    return tuple(map(int, shape)), kind


def check_table(path: Path, name: str, limit: int) -> dict[str, Any]:
    """The devices, runtimes and number of rows of a table of latencies.

    Raises:
        InvalidInput: it is no such table; as ``hw_models.tables.read_table``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..hw_models.tables import read_table

    if path.suffix == ".parquet":
        try:
            about = pq.ParquetFile(path).metadata
        except (pa.ArrowException, OSError) as cause:
            raise InvalidInput(f"{name} is no parquet file: {' '.join(str(cause).split())[:200]}") from None
        unpacked = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
        if about.num_rows > _MOST_ROWS or unpacked > limit:
            raise InvalidInput(f"{name}: {about.num_rows} rows, {unpacked} bytes; more than is taken")
    try:
        frame = read_table(path).frame
    except InvalidInput as cause:
        raise InvalidInput(str(cause).replace(str(path), name).replace(path.name, name)) from None
    return {
        "devices": sorted({str(each) for each in frame["device"]}),
        "runtimes": sorted({str(each) for each in frame["runtime"]}),
        "rows": len(frame),
    }
