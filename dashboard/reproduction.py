"""The lines that give a point again: on the command line and in Python."""

from __future__ import annotations

import json
import shlex

from .session import server
from .view import View


def command_lines(source: str, view: View, row: int) -> str:
    """Shell lines that show the job's front and export the point."""
    kind, _, name = source.partition(":")
    if kind == "run":
        folder = shlex.quote(name)
        return f"bitfront front {folder}\nbitfront export {folder} --point {shlex.quote(view.ids[row])}"
    url = shlex.quote(server() or "http://127.0.0.1:8765")
    return "\n".join(
        [
            f"export BITFRONT_SERVER={url}   # and BITFRONT_TOKEN",
            f"bitfront front {name}",
            f"bitfront export {name} --point {shlex.quote(view.ids[row])} --target onnx --to out",
        ]
    )


def python_lines(source: str, view: View, row: int) -> str:
    """Python that builds the configuration, measures and exports it."""
    config = json.dumps(dict(sorted(view.config(row).items())), indent=4)
    kind, _, name = source.partition(":")
    lines = [
        "import bitfront as bf",
        "",
        f"config = bf.Configuration.from_dict({config})",
    ]
    if kind == "job":
        lines += [
            "",
            f"with bf.Client({json.dumps(server() or 'http://127.0.0.1:8765')}) as client:  # token: BITFRONT_TOKEN",
            f'    exported = client.export({json.dumps(name)}, {json.dumps(view.ids[row])}, target="onnx")',
            "    client.wait(exported.id)",
        ]
    lines += [
        "",
        "# with the model at hand:",
        'bf.export(model, config, "model.onnx", target="onnx", example_inputs=inputs)',
    ]
    return "\n".join(lines) + "\n"
