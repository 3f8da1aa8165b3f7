"""How good the latency models are: held-out error, few samples, whole networks, speed.

``python benchmarks/latency.py PART …`` runs parts, each of which writes JSON under ``out/`` after every step, so that a
stopped run goes on where it was; ``--seconds`` bounds each part. Splits are always by weight shape (n, k), not by row.

- ``dense``: 20 % of the weight shapes held out, per device and format: roofline, interpolation between neighbours,
  plain boosting and ours (MAPE, share within 10 %, Spearman, coverage of the intervals),
- ``lines``: the same with whole lines of n, k and m held out: shapes that lie between those of the table,
- ``speed``: 10,000 (site, format) prices,
- ``few``: a new device from 20, 50, 100, 300 samples, every device left out in turn,
- ``nas201``: NAS-Bench-201's 23 devices from 10 samples,
- ``report``: tables (Markdown) and the figure of what ``dense``, ``lines`` and ``speed`` wrote; measures nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

#: Part -> module and function in it: ``function(arguments)``, arguments as parsed below. Imported when asked for.
PARTS = {
    "dense": ("latency_dense", "dense"),
    "lines": ("latency_dense", "lines"),
    "speed": ("latency_speed", "speed"),
    "few": ("latency_few", "few"),
    "nas201": ("latency_nas201", "nas201"),
    "report": ("latency_report", "report"),
}


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--seconds", type=float, default=36_000.0, help="for each part: no step starts after them")
    parser.add_argument(
        "--splits", type=int, default=1, help="dense: how many of the five disjoint fifths are held out"
    )
    parser.add_argument("--devices", nargs="+", help="names; default: all that have measured products")
    parser.add_argument("--formats", nargs="+", help="default: all that a device has")
    parser.add_argument("--runtime", help="trtllm, sglang or vllm; default: the first that was measured")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the JSON files")
    parser.add_argument("--figures", type=Path, default=Path("docs/img"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        module, name = PARTS[part]
        run: Callable[[argparse.Namespace], None] = getattr(import_module(module), name)
        run(arguments)


if __name__ == "__main__":
    main()
