"""A real network, exported in a mixed configuration and on integer kernels."""

import pytest
import torch
from bitfront import zoo
from bitfront.errors import InvalidInput
from bitfront.evaluators import calibrate
from bitfront.exporters import export
from bitfront.space import SearchSpace
from bitfront.task import Task

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def entry():
    try:
        return zoo.load("efficientnet_lite0", calibration=4, validation=4, holdout=4)
    except InvalidInput as cause:
        pytest.skip(str(cause))


def test_efficientnet_in_a_mixed_configuration(tmp_path, entry):
    task = Task(entry.model, calibration=entry.calibration, validation=entry.validation, holdout=entry.holdout)
    formats = ["w4", "w8", "w8a8", "bf16"]
    space = SearchSpace.from_model(entry.model, entry.example_inputs, formats=formats, ties="none")
    calibration = calibrate(task, space)
    # the last layers take activations in 8 bits, the others weights only
    late = dict.fromkeys(space.names[-8:], "w8a8")
    early = {name: ("w4", "w8")[index % 2] for index, name in enumerate(space.names[:-8])}
    report = export(
        entry.model,
        early | late,
        tmp_path / "efficientnet.onnx",
        example_inputs=entry.validation[0],
        calibration=calibration,
        space=space,
    )
    assert len(report.integer_kernels) == 8
    assert report.relative_error < 0.01
    assert report.dynamic_batch
    assert report.compression > 3.5
    expected = sum(space.sites[i].elements * (4 if early.get(n) == "w4" else 8) for i, n in enumerate(space.names)) / 8
    parameters = sum(parameter.numel() for parameter in entry.model.parameters())
    rest = 4 * (parameters - sum(site.elements for site in space.sites))
    scales = 4 * sum(site.weight_shape[0] for site in space.sites)
    assert report.bytes_on_disk == pytest.approx(expected + rest + scales, rel=0.02)
    assert torch.isfinite(torch.tensor(report.noise))
