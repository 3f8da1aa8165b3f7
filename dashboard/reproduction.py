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
    lines = [f"export BITFRONT_SERVER={url}   # and BITFRONT_TOKEN", f"bitfront front {name}"]
    if not view.architectures:  # points of a search of architectures are exported where it is run
        lines.append(f"bitfront export {name} --point {shlex.quote(view.ids[row])} --target onnx --to out")
    return "\n".join(lines)


def python_lines(source: str, view: View, row: int) -> str:
    """Python that builds the configuration, measures and exports it."""
    if view.architectures:
        return _genome_lines(view, row)
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


def _genome_lines(view: View, row: int) -> str:
    """A point of a joint search: network and formats; the family builds the network."""
    genome = {"architecture": view.architectures[row], "formats": dict(sorted(view.config(row).items()))}
    lines = [
        "from bitfront.architecture import Genome",
        "",
        f"genome = Genome.from_dict({json.dumps(genome, indent=4)})",
        "",
        "# with the family of the search at hand:",
        "model = family.build(genome.choices)",
        'bf.export(model, genome.configuration, "model.onnx", target="onnx", example_inputs=inputs)',
    ]
    return "import bitfront as bf\n" + "\n".join(lines) + "\n"
