"""How a job names a formula of its own: ``formula:`` and an expression, or a file that holds one.

``formula:mean(square(error) * fisher)`` is a proxy by its expression, where more is worse.
``formula:mine.formula.json`` is the first formula of a library file, such as ``bitfront proxies evolve`` writes.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import InvalidInput
from .expression import Formula, Node
from .library import read_library
from .proxy import FormulaProxy

PREFIX = "formula:"


def resolved(name: str, folder: Path | None = None) -> str:
    """The name of a proxy with a formula file replaced by its expression; other names as they are.

    So a record says what was computed, whatever becomes of the file.

    Args:
        name: of a proxy.
        folder: where relative paths start.

    Raises:
        InvalidInput: no such file, no formula in it, or an expression that is none.
    """
    if not name.startswith(PREFIX):
        return name
    text = name.removeprefix(PREFIX).strip()
    if not text.endswith(".json"):
        return f"{PREFIX}{Formula.parse(text)}"
    path = (folder or Path()) / text
    if not path.is_file():
        raise InvalidInput(f"proxy {name}: no file {path}; write one with `bitfront proxies evolve JOB.yaml`")
    library = read_library(path)
    if not library:
        raise InvalidInput(f"proxy {name}: {path} holds no formula; write one with `bitfront proxies evolve JOB.yaml`")
    entry = next(iter(library.values()))
    return reference(entry.expression, entry.orientation)


def reference(expression: str, orientation: int) -> str:
    """The name of the proxy of an expression; what is better the larger it is comes with a minus."""
    formula = Formula.parse(expression)
    return f"{PREFIX}{formula if orientation > 0 else Formula(Node.of('negate', formula.root))}"


def formula_proxy(name: str) -> FormulaProxy:
    """The proxy that a name stands for.

    Raises:
        InvalidInput: see ``resolved``.
    """
    full = resolved(name)
    return FormulaProxy(full, full.removeprefix(PREFIX))
