"""What a ``.pt2`` archive of ``torch.export.save`` may hold, checked before anything of it is loaded.

``torch.export.load`` trusts its file: pickled tensors and sample inputs are unpickled, shared libraries are loaded,
operators are looked up by any name in torch, sizes are evaluated as Python, names end up in generated code. So here the
archive is read as what it is, a zip of JSON and raw tensors, checked against a list of what is allowed, and written
anew from the checked parts alone; only that copy is ever given to torch.

=====================  =================================================================================================
part                   allowed
=====================  =================================================================================================
members                stored, not compressed; one folder; JSON, raw tensors; no library, no legacy pickle
tensors                raw, of a number type, each as long as its shape says or longer
operators              ``torch.ops.aten``, ``_operator``, and torch's arithmetic of sizes
names                  letters, digits, underscores; dotted for modules
sizes                  integer arithmetic of named symbols
structure of inputs    tuples, lists, dicts of tensors
guards, traces,        left out
sample inputs
=====================  =================================================================================================
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..errors import InvalidInput
from .exported_program import checked_program

_MOST_MEMBERS = 50_000
_MOST_JSON = 200_000_000
_PATH = re.compile(r"[A-Za-z0-9_.]*")
#: bytes of an element by torch's number of the type in archives: uint8 … float64, bool, bfloat16 (no complex, no fp8)
_ELEMENT = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 12: 1, 13: 2}


@dataclass(frozen=True)
class CheckedArchive:
    """The checked parts of an archive.

    Attributes:
        program: ``model.json``, without guards, traces and anything else that loading does not need.
        weights: its configuration of weights; each names a member.
        constants: likewise of constants.
        files: member names of the raw tensors, relative to the folder in the archive.
        root: that folder.
    """

    program: dict[str, Any]
    weights: dict[str, Any]
    constants: dict[str, Any]
    files: tuple[str, ...]
    root: str


def check_archive(stream: IO[bytes], what: str) -> CheckedArchive:
    """Check an archive; nothing of it is loaded, imported or unpickled.

    Args:
        stream: the file, seekable.
        what: names it in errors.

    Raises:
        InvalidInput: it is no such archive, or holds what is not allowed.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            return _checked(archive, what)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, EOFError, RuntimeError) as cause:
        raise InvalidInput(f"{what} is no archive of torch.export.save: {' '.join(str(cause).split())}") from None
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as cause:
        if isinstance(cause, InvalidInput):
            raise
        raise InvalidInput(f"{what}: not laid out as torch.export.save does ({cause!r})") from None


def rewrite(source: IO[bytes], checked: CheckedArchive, target: Path, sample_inputs: bytes) -> None:
    """Write an archive of the checked parts alone.

    Args:
        source: the file that was checked.
        checked: what ``check_archive`` gave for it.
        target: a path that ends in ``.pt2``.
        sample_inputs: what ``torch.save`` writes for ``((), {})``.
    """
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in checked.files:
            with old.open(f"{checked.root}/{name}") as member, new.open(f"model/{name}", "w") as copy:
                while piece := member.read(1 << 22):
                    copy.write(piece)
        texts: dict[str, str | bytes] = {
            "archive_format": "pt2",
            "archive_version": "0",
            "byteorder": "little",
            ".data/version": "3\n",
            "models/model.json": json.dumps(checked.program),
            "data/weights/model_weights_config.json": json.dumps(checked.weights),
            "data/constants/model_constants_config.json": json.dumps(checked.constants),
            "data/sample_inputs/model.pt": sample_inputs,
        }
        for name, content in texts.items():
            new.writestr(f"model/{name}", content)


def _checked(archive: zipfile.ZipFile, what: str) -> CheckedArchive:
    members = archive.infolist()
    if len(members) > _MOST_MEMBERS:
        raise InvalidInput(f"{what}: {len(members)} members; at most {_MOST_MEMBERS} are allowed")
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise InvalidInput(f"{what}: a member comes twice")
    roots = {name.partition("/")[0] for name in names}
    if len(roots) != 1:
        raise InvalidInput(f"{what}: expected one folder, found {len(roots)}")
    for member in members:
        _check_member(member, what)
    root = roots.pop()
    inner = {name.partition("/")[2]: member for name, member in zip(names, members, strict=True)}
    models = [name for name in inner if name.startswith("models/")]
    if len(models) != 1 or not models[0].endswith(".json"):
        raise InvalidInput(f"{what}: expected one exported program, found {len(models)} in models/")
    model = models[0].removeprefix("models/").removesuffix(".json")
    configs = [f"data/{kind}/{model}_{kind}_config.json" for kind in ("weights", "constants")]
    allowed = {"archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id"}
    allowed |= {models[0], *configs, f"data/sample_inputs/{model}.pt"}
    raw = re.compile(r"data/(weights/weight_\d+|constants/tensor_\d+)")
    for name in inner:
        if name not in allowed and not raw.fullmatch(name) and not name.startswith("extra/"):
            kind = "compiled code" if "aotinductor" in name or name.endswith(".so") else "a member"
            raise InvalidInput(f"{what}: {kind} that is not allowed: {name[:80]!r}; give what torch.export.save writes")
    weights, constants = (
        _tensors(_read(archive, inner[name], what), inner, name.rpartition("/")[0], what) for name in configs
    )
    used = {
        f"data/{kind}/{path}"
        for kind, found in (("weights", weights), ("constants", constants))
        for path in _paths(found)
    }
    program = checked_program(_read(archive, inner[models[0]], what), what)
    return CheckedArchive(program, weights, constants, tuple(sorted(used)), root)


def _check_member(member: zipfile.ZipInfo, what: str) -> None:
    name = member.filename
    if name.startswith("/") or "\\" in name or ".." in name.split("/") or "\0" in name:
        raise InvalidInput(f"{what}: the member name {name[:80]!r} leads out of the archive")
    if member.flag_bits & 1:
        raise InvalidInput(f"{what}: the member {name[:80]!r} is encrypted")
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise InvalidInput(
            f"{what}: the member {name[:80]!r} is compressed; torch.export.save stores members as they are"
        )


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, what: str) -> dict[str, Any]:
    if member.file_size > _MOST_JSON:
        raise InvalidInput(f"{what}: {member.filename} is longer than {_MOST_JSON} bytes")
    found = json.loads(archive.read(member))
    if not isinstance(found, dict):
        raise InvalidInput(f"{what}: {member.filename} holds no JSON object")
    return found


def _tensors(config: dict[str, Any], inner: dict[str, zipfile.ZipInfo], folder: str, what: str) -> dict[str, Any]:
    """The configuration of raw tensors, each within its member."""
    entries = {}
    for name, entry in config["config"].items():
        meta = entry["tensor_meta"]
        if entry["use_pickle"] or meta is None:
            raise InvalidInput(f"{what}: the tensor {name[:80]!r} is pickled; only raw tensors are loaded")
        if not _PATH.fullmatch(name):
            raise InvalidInput(f"{what}: {name[:80]!r} is no name of a tensor")
        element = _ELEMENT.get(meta["dtype"])
        if element is None:
            raise InvalidInput(f"{what}: the tensor {name} has a type that is not allowed (number {meta['dtype']!r})")
        sizes, strides = ([_whole(each, what) for each in meta[key]] for key in ("sizes", "strides"))
        offset = _whole(meta["storage_offset"], what)
        path = f"{folder}/{entry['path_name']}"
        last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        if path not in inner or (0 not in sizes and (last + 1) * element > inner[path].file_size):
            raise InvalidInput(f"{what}: the tensor {name} reaches beyond its data")
        entries[name] = {
            "path_name": entry["path_name"],
            "is_param": bool(entry["is_param"]),
            "use_pickle": False,
            "tensor_meta": {**{key: meta[key] for key in ("dtype", "sizes", "strides", "storage_offset")}, **_PLAIN}
            | {"requires_grad": meta["requires_grad"] is True},
        }
    return {"config": entries}


_PLAIN = {"device": {"type": "cpu", "index": None}, "layout": 7}


def _whole(given: dict[str, Any], what: str) -> int:
    value = given["as_int"]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**40:
        raise InvalidInput(f"{what}: {value!r} is no size")
    return value


def _paths(config: dict[str, Any]) -> Iterator[str]:
    yield from {entry["path_name"] for entry in config["config"].values()}
