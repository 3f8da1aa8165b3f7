"""OpenVINO's intermediate representation as files: a small graph in XML, and constants in one binary file.

``compact`` makes the XML small and the same in every process: OpenVINO writes one line for every dimension of every
operand, all of which it infers again while reading, and names nodes by counters of the process. ``constants`` reads
named constants back without OpenVINO.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

#: The names that ``optimum-intel`` and the samples of OpenVINO read.
XML, BIN = "openvino_model.xml", "openvino_model.bin"


@dataclass(frozen=True)
class Constant:
    """A constant of the file.

    Attributes:
        element_type: OpenVINO's name, such as ``"i4"``.
        shape: as the graph sees it.
        data: its bytes.
    """

    element_type: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


def compact(xml: Path, kept: Collection[str] = ()) -> None:
    """Rewrite the XML without white space, inner names and inferred shapes; nodes are named by type and number.

    Args:
        xml: the file.
        kept: names of nodes that stay as they are; those of inputs and outputs do too.
    """
    tree = ElementTree.parse(xml)
    root = tree.getroot()
    kept = set(kept)
    counts: Counter[str] = Counter()
    for layer in root.iter("layer"):
        kind, name = layer.attrib["type"], layer.attrib["name"]
        if kind not in ("Parameter", "Result") and name not in kept:
            layer.set("name", f"{kind}_{counts[kind]}")
            counts[kind] += 1
    outputs = _sources_of_results(root)
    for layer in root.iter("layer"):
        if layer.attrib["type"] == "Parameter":
            continue
        for port in layer.iterfind("input/port"):
            _clear(port, "precision")
        for port in layer.iterfind("output/port"):
            if (layer.attrib["id"], port.attrib["id"]) in outputs:
                _clear(port)
            else:
                _clear(port, "names")
    for element in root.iter():
        element.tail = None
        if element.text is not None and not element.text.strip():
            element.text = None
    tree.write(xml, encoding="utf-8", xml_declaration=True, short_empty_elements=True)


def constants(folder: Path) -> dict[str, Constant]:
    """The constants of a model by name, its binary file mapped into memory."""
    data = np.memmap(folder / BIN, dtype=np.uint8, mode="r")
    found = {}
    for layer in ElementTree.parse(folder / XML).getroot().iter("layer"):
        if layer.attrib["type"] != "Const":
            continue
        told = layer.find("data")
        assert told is not None
        start, size = int(told.attrib["offset"]), int(told.attrib["size"])
        shape = tuple(int(number) for number in told.attrib["shape"].split(",") if number.strip())
        found[layer.attrib["name"]] = Constant(told.attrib["element_type"], shape, data[start : start + size])
    return found


def _clear(port: ElementTree.Element, *attributes: str) -> None:
    """Drop the dimensions of an operand, and attributes."""
    for dimension in list(port):
        port.remove(dimension)
    for attribute in attributes:
        port.attrib.pop(attribute, None)


def _sources_of_results(root: ElementTree.Element) -> set[tuple[str, str]]:
    """The (layer, port) pairs that are outputs of the model: their names are part of its interface."""
    results = {layer.attrib["id"] for layer in root.iter("layer") if layer.attrib["type"] == "Result"}
    return {
        (edge.attrib["from-layer"], edge.attrib["from-port"])
        for edge in root.iter("edge")
        if edge.attrib["to-layer"] in results
    }
