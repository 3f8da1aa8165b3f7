"""Exporters by name, their contract, and the pieces of the check."""

from importlib.metadata import EntryPoint

import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.exporters import get, names, registry
from bitfront.exporters.comparison import doubled, relative_error
from bitfront.formats import Format
from bitfront.formats import names as format_names
from bitfront.task import Batch


@pytest.mark.parametrize("name", names())
def test_every_exporter_keeps_the_contract(name):
    exporter = get(name)
    assert exporter.name == name
    for format_name in format_names():
        capability = exporter.capability(Format.parse(format_name))
        assert capability.reason
        assert bool(capability) is capability.supported
    for verb in ("capability", "fused", "validate", "export", "check", "runtime", "default_bound"):
        assert callable(getattr(exporter, verb))


def test_an_unknown_target_is_answered_with_the_nearest():
    with pytest.raises(InvalidInput, match="unknown export target 'onxx'; nearest: onnx"):
        get("onxx")


def test_packages_add_exporters_but_do_not_replace_built_in_ones(monkeypatch):
    added = [
        EntryPoint("mine", "bitfront.exporters.onnx_exporter:OnnxExporter", registry.GROUP),
        EntryPoint("onnx", "nowhere:Nothing", registry.GROUP),
        EntryPoint("broken", "nowhere:Nothing", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: added)
    assert names() == sorted({"broken", "mine", *registry._BUILT_IN})
    assert get("mine").name == get("onnx").name == "onnx"
    with pytest.raises(InvalidInput, match=r"'broken' .* does not load"):
        get("broken")


def test_relative_error():
    wanted = torch.tensor([3.0, 4.0])
    assert relative_error(wanted, wanted) == 0.0
    assert relative_error(torch.tensor([3.0, 4.5]), wanted) == pytest.approx(0.1)
    assert relative_error(torch.tensor([3.0, float("nan")]), wanted) == float("inf")
    assert relative_error(torch.tensor([3.0]), wanted) == float("inf")
    assert relative_error(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 5])) == 0.25
    assert relative_error(torch.tensor([0.5]), torch.tensor([0.0])) == 0.5


def test_a_batch_is_doubled_along_its_samples_only():
    batch = doubled(Batch({"x": torch.zeros(3, 2), "table": torch.zeros(5, 2)}))
    assert {name: tuple(tensor.shape) for name, tensor in batch.tensors.items()} == {"x": (6, 2), "table": (5, 2)}
