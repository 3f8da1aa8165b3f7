"""The verb ``devices``: what latency can be priced for, by which tables, and what the tables of one device hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table


def devices_command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One device, with all that it has.")] = None,
    runtime: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of one device: only the tables of this runtime.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False,
) -> None:
    """List the devices that latency can be priced for, and where the numbers come from.

    bitfront devices nvidia-h100-sxm
    """
    from ...errors import InvalidInput
    from ..device_document import device_detail, device_rows
    from ..terminal import show

    if name is None:
        if runtime is not None:
            raise InvalidInput(f"--runtime {runtime} needs a device: bitfront devices NAME --runtime {runtime}")
        rows = device_rows()
        if as_json:
            print(json.dumps(rows, allow_nan=False))  # noqa: T201
            return
        show(_list(rows), "one of them in full: bitfront devices NAME")
        return
    found = device_detail(name, runtime)
    if as_json:
        print(json.dumps(found, allow_nan=False))  # noqa: T201
        return
    show(*_lines(found), *([_kernels(found)] if found["kernels"] else []), *_notes(found))


def _list(rows: list[dict[str, Any]]) -> Table:
    """One line a table; one line for a device without."""
    from rich.table import Table

    table = Table("device", "latency", "runtime", "kernels", "rows", "measured", "digest")
    for row in rows:
        lines = [
            (
                f"{each['runtime']} {each['version']}".strip(),
                " ".join(each["kernels"]),
                f"{each['rows']:,}",
                " to ".join(each["dates"]) or "not recorded",
                each["digest"],
            )
            for each in row["tables"]
        ]
        for index, line in enumerate(lines or [("", "", "", "", "")]):
            table.add_row(*((row["device"], row["latency"]) if index == 0 else ("", "")), *line)
    return table


def _lines(found: dict[str, Any]) -> list[str]:
    """The data sheet, and how latency comes about."""
    if found["device"] == "cpu":
        return ["device    cpu", f"latency   measured: {found['reference']}"]
    peaks = ", ".join(f"{kind} {peak:g}" for kind, peak in found["peak_tera"].items())
    how = "measured tables and a predictor fitted to them" if found["kernels"] else "roofline of the data sheet only"
    return [
        f"device    {found['device']}, compute capability {found['compute_capability']}, {found['power_w']:g} W",
        f"sheet     {found['bandwidth_gb_s']:g} GB/s; 10^12 operations a second: {peaks}",
        f"          {found['reference']}",
        f"latency   {how}",
    ]


def _kernels(found: dict[str, Any]) -> Table:
    """Per kernel: the formats that it runs, the table that answers, and which products it covers."""
    from rich.table import Table

    table = Table("kernel", "formats", "table", "rows", "m", "n", "k", "input", "predictor")
    for each in found["kernels"]:
        table.add_row(
            each["kernel"],
            " ".join(each["formats"]) or "none (a mode of float models)",
            f"{each['runtime']} {each['version']} {each['digest']}",
            f"{each['rows']:,}",
            *(f"{each[side][0]}-{each[side][1]}" for side in "mnk"),
            "quantized inside" if each["quantizes_input"] else "as it is",
            _error(each["predictor"]),
        )
    return table


def _error(predictor: dict[str, Any] | None) -> str:
    """Half the typical interval of the predictor, for known sizes and for those in between."""
    if predictor is None:
        return "fitted when first asked"
    known, between = (predictor[f"typical_error_{name}"] for name in ("known_sizes", "between"))
    return f"±{known:.0%}, between sizes ±{between:.0%} ({predictor['coverage']:.0%})"


def _notes(found: dict[str, Any]) -> list[str]:
    """What else the prices rest on."""
    notes = []
    single = [each["kernel"] for each in found["kernels"] if each["singly_timed"]]
    if single:
        notes.append(f"careful   {', '.join(single)} were timed singly, in steps of 1 µs")
    if found["elementwise"]:
        law = found["elementwise"]
        notes.append(
            f"others    operators that are no products: {law['reference']}, from {law['floor_us']:g} µs, "
            f"error {law['error']:.1%}"
        )
    used = {each["digest"] for each in found["kernels"]}
    for each in found["tables"]:
        dates = f", {' to '.join(each['dates'])}" if each["dates"] else ""
        label = "table" if each["digest"] in used else "also"
        notes.append(
            f"{label:9} {each['runtime']} {each['version']}: {each['rows']:,} rows ({each['statistic']}) of "
            f"{' '.join(each['kernels'])}; {each['source']}{dates}, digest {each['digest']}"
        )
    return notes
