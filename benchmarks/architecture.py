r"""Architecture and bits in one search: everything that is measured of it, one part a command.

    python benchmarks/architecture.py                 # the parts, and what each asks
    python benchmarks/architecture.py tabular --help
    nice python benchmarks/architecture.py joint --price bops

Each part is a script of its own beside this one (``architecture_PART.py``) with its own options and its own page in
docs/; results lie in out/ and a run that is killed goes on.
"""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent


def parts() -> dict[str, Path]:
    """The parts by name."""
    return {path.stem.removeprefix("architecture_").replace("_", "-"): path for path in HERE.glob("architecture_*.py")}


def question(path: Path) -> str:
    """The first line of a part's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]


def main() -> int:
    found = dict(sorted(parts().items()))
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in found:
        sys.argv = [str(found[name]), *sys.argv[2:]]
        runpy.run_path(str(found[name]), run_name="__main__")
        return 0
    told = "\n".join(f"  {part:12} {question(path)}" for part, path in found.items())
    if name in ("", "-h", "--help"):
        print(f"usage: python benchmarks/architecture.py PART [options of the part]\n\n{told}")
        return 0
    print(f"no part {name!r}; choose one of {', '.join(found)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
