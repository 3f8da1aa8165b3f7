"""How good the loop of a search is: against the exhaustive truth, exact allocation and evolution, and in seconds.

``python benchmarks/search.py PART …`` runs parts and writes ``out/search_PART.json``; every evaluation is kept in a
store, so a stopped run goes on where it was. ``--seconds`` bounds the run. Parts:

- ``exhaustive``: digits_resnet20 with eight tie groups of {w2, w3, w4}: all 6,561 configurations are measured once;
  then the loop and every proposer alone are replayed against the table, with several seeds,
- ``nets``: the loop with 0 to 128 evaluations against uniform, greedy, exact allocation and level-switch evolution at
  3 to 6 average bits, judged on samples that none of them saw,
- ``optimum``: local search from what every method of ``nets`` ended with, to see how much was left to find,
- ``overfitting``: validation against held-out loss along the search, with few validation samples,
- ``flip``: how the optimum under a latency budget changes between devices and batch sizes,
- ``seconds``: from model to front by stage, and how it grows,
- ``report``: tables (Markdown) and figures of what the parts wrote; measures nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from bitfront.store import Store
from search_exhaustive import exhaustive
from search_flip import flip
from search_nets import SEARCHES, nets
from search_optimum import optimum
from search_overfitting import overfitting
from search_report import report
from search_seconds import seconds
from search_tasks import FOUR, SAMPLES, Notebook

PARTS = ("exhaustive", "nets", "optimum", "overfitting", "flip", "seconds", "report")


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--seconds", type=float, default=3600.0, help="for each part")
    parser.add_argument("--seeds", type=int, default=10, help="exhaustive: replays of every method")
    parser.add_argument("--nets", nargs="+", default=list(SAMPLES))
    parser.add_argument("--formats", nargs="+", default=list(FOUR))
    parser.add_argument("--bits", nargs="+", type=float, default=[3.0, 4.0, 5.0, 6.0])
    parser.add_argument("--evaluations", nargs="+", type=int, default=[16, 48, 128])
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=list(SEARCHES), help="nets: which")
    parser.add_argument("--store", help="URL; default: out/search_PART.db")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the JSON files")
    parser.add_argument("--figures", type=Path, default=Path("docs/img"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        book = Notebook(arguments.out / f"search_{part}.json", arguments.seconds)
        if part == "report":
            report(arguments.out, arguments.figures)
            continue
        kept = "nets" if part == "optimum" else part
        store = Store(arguments.store or f"sqlite:///{arguments.out / f'search_{kept}.db'}")
        if part == "exhaustive":
            exhaustive(book, store, arguments.seeds)
        elif part == "nets":
            formats, counts = tuple(arguments.formats), arguments.evaluations
            nets(book, store, arguments.nets, formats, arguments.bits, counts, arguments.searches)
        elif part == "optimum":
            found = Notebook(arguments.out / "search_nets.json", arguments.seconds)
            optimum(book, found, store, arguments.nets[0], tuple(arguments.formats), arguments.bits[0])
        elif part == "overfitting":
            overfitting(book, store, arguments.nets[0])
        elif part == "flip":
            flip(book, store, arguments.nets[0])
        else:
            seconds(book, arguments.nets[0])
        store.close()


if __name__ == "__main__":
    main()
