"""The check back: another process without bitfront, limits of time and memory, and what fails an export."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from bitfront import SearchSpace, Task
from bitfront.errors import ExportMismatch, InvalidInput, UnsupportedModel
from bitfront.exporters import Capability, export, registry
from bitfront.exporters.comparison import relative_error_over
from bitfront.exporters.protocol import Runtime
from bitfront.exporters.report import Artifact, ExportReport
from bitfront.exporters.verify_run import run_apart
from bitfront.task import Batch
from torch import nn

LOADER = """
import numpy as np, time
class Loaded:
    def __init__(self, path, settings):
        self.weight = np.load(path)
        self.settings = settings
    def run(self, inputs):
        {run}
        return [("y", inputs[0][1] @ self.weight.T * self.settings.get("scale", 1))]
    def details(self):
        return {{"runtime": "numpy", "version": np.__version__}}
def load(path, settings):
    {load}
    return Loaded(path, settings)
"""


class Stored:
    """A target that stores the fake-quantized weight of one linear layer; its loader is made by the test."""

    name = "stored"
    layout = "file"
    packages = ()
    extra = ""
    libraries = ()
    options = frozenset({"scale"})
    load = run = "pass"
    seconds, memory = 60.0, 8_000_000_000

    def capability(self, format, site=None):
        return Capability(True, "stored")

    def fused(self, space):
        return []

    def validate(self, request):
        return []

    def export(self, request, folder):
        (site,) = request.space.sites
        weight = request.quantized.weight(site, request.format_of(site).weight)
        with (folder / request.name).open("wb") as stream:
            np.save(stream, weight.numpy())
        return Artifact((request.name,), site.elements * 4)

    def check(self, request, folder):
        pass

    def runtime(self, request, folder, scratch):
        loader = scratch / "loader.py"
        loader.write_text(LOADER.format(load=self.load, run=self.run))
        return Runtime(loader, {"scale": request.options.get("scale", 1)}, self.seconds, self.memory)

    def default_bound(self, request, noise):
        return 1e-5


@pytest.fixture
def stored(monkeypatch):
    """The target, registered; a test sets what its loader does."""
    target = Stored()
    monkeypatch.setattr(registry, "get", lambda name: target)
    return target


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 4, bias=False)).eval()


def batches(count=4, size=6):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(size, 16, generator=generator), torch.randint(4, (size,), generator=generator))
            for _ in range(count)]  # fmt: skip


def exported(path, **arguments):
    given = {"example_inputs": batches()[0][0][:2], **arguments}
    return export(linear(), {"0": "w4"}, path, "stored", **given)


def task(quality="kl"):
    return Task(linear(), calibration=batches(1), validation=batches(), holdout=batches(1), quality=quality)


def test_the_artifact_is_run_on_validation_data_and_timed_against_float(tmp_path, stored):
    report = exported(tmp_path / "m.npy", task=task(), samples=16, rounds=5, against_float=True)
    assert report.runtime == "numpy"
    assert report.relative_error < 1e-6
    assert report.quality.samples == 16
    assert report.quality.metric == "kl"
    assert report.quality.artifact == pytest.approx(report.quality.fake_quantized, rel=1e-4)
    assert report.quality.low <= report.quality.difference <= report.quality.high
    for timing in (report.latency, report.float_latency):
        assert (timing.passes, timing.batch, timing.threads) == (5, 2, 1)
        assert 0 < timing.low_ms <= timing.median_ms <= timing.high_ms
    assert report.dynamic_batch
    assert report.predicted_bytes == 16 * 4 // 2 + 4 * 4


def test_bitfront_cannot_be_imported_there_and_nothing_of_the_caller_is_on_the_path(tmp_path, stored, monkeypatch):
    (tmp_path / "mine.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for module in ("bitfront", "bitfront.formats", "mine"):
        stored.load = f"import {module}"
        with pytest.raises(UnsupportedModel, match=r"does not load the artifact: ModuleNotFoundError"):
            exported(tmp_path / "m.npy")


def test_what_the_runtime_raises_is_told_in_one_line(tmp_path, stored):
    stored.load = "raise OSError('no such codec\\nsecond line')"
    with pytest.raises(UnsupportedModel, match=r"^the runtime does not load the artifact: OSError: no such codec$"):
        exported(tmp_path / "m.npy")
    stored.load, stored.run = "pass", "raise ValueError('bad shape')"
    with pytest.raises(ExportMismatch, match=r"loads and then fails on the example inputs: ValueError: bad shape$"):
        exported(tmp_path / "m.npy")
    assert not list(tmp_path.iterdir())


def test_a_runtime_that_dies_is_told_with_its_exit_code(tmp_path, stored):
    stored.load = "import os; os._exit(9)"
    with pytest.raises(UnsupportedModel, match="the runtime died with exit code 9: no message"):
        exported(tmp_path / "m.npy")


def test_time_is_bounded(tmp_path, stored):
    stored.load, stored.seconds = "time.sleep(600)", 1.0
    with pytest.raises(UnsupportedModel, match=r"took more than 1 s"):
        exported(tmp_path / "m.npy")
    assert not list(tmp_path.iterdir())


def test_memory_is_bounded(tmp_path, stored):
    stored.load, stored.memory = "held = np.ones(50_000_000); time.sleep(600)", 300_000_000
    with pytest.raises(UnsupportedModel, match=r"GB of memory, more than the 0\.30 GB that are allowed"):
        exported(tmp_path / "m.npy")


def test_other_outputs_fail_the_export_and_leave_the_old_artifact(tmp_path, stored):
    exported(tmp_path / "m.npy")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(
        ExportMismatch, match=r"relative error 0\.01 at output 'y', bound 1e-05 .*; nothing was written"
    ):
        exported(tmp_path / "m.npy", options={"scale": 1.01})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_worse_metric_fails_the_export_although_the_bound_is_met(tmp_path, stored):
    """Outputs of half the size are within a wide bound, and their divergence from the float model is not noise."""
    with pytest.raises(ExportMismatch, match=r"is worse than the fake-quantized model: kl .* on 24 samples"):
        exported(tmp_path / "m.npy", task=task(), bound=0.9, options={"scale": 0.3})
    assert not list(tmp_path.iterdir())


def test_values_that_are_not_finite_fail(tmp_path, stored):
    with pytest.raises(ExportMismatch, match="relative error inf"):
        exported(tmp_path / "m.npy", task=task(), options={"scale": 1e39})


def test_the_relative_error_is_that_of_all_batches_together():
    generator = torch.Generator().manual_seed(0)
    wanted = [torch.randn(size, 3, generator=generator) for size in (1, 4, 2)]
    given = [each + 0.1 * torch.randn(each.shape, generator=generator) for each in wanted]
    squares = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(given, wanted, strict=True))
    naive = math.sqrt(squares / sum(float(each.double().square().sum()) for each in wanted))
    assert relative_error_over(list(zip(given, wanted, strict=True))) == pytest.approx(naive, rel=1e-12)
    assert relative_error_over([(torch.ones(2), torch.ones(3))]) == math.inf
    integers = [(torch.tensor([1, 2]), torch.tensor([1, 3])), (torch.tensor([1, 1]), torch.tensor([1, 1]))]
    assert relative_error_over(integers) == 0.25


def test_inputs_come_by_name_in_their_order(tmp_path):
    (tmp_path / "loader.py").write_text(
        "import numpy as np\n"
        "class Loaded:\n"
        "    def run(self, inputs): return [('names', np.array([ord(name[0]) for name, _ in inputs]))]\n"
        "    def details(self): return {}\n"
        "def load(path, settings): return Loaded()\n"
    )
    batch = Batch({"z": torch.ones(1), "a": torch.ones(1), "m": torch.ones(1)})
    answer = run_apart(Runtime(tmp_path / "loader.py"), [(tmp_path, {})], [batch], tmp_path / "scratch")
    assert [chr(each) for each in answer.outputs[0][0]] == ["z", "a", "m"]
    assert answer.milliseconds == []
    assert answer.peak_bytes >= 0


def test_a_report_comes_back_from_json(tmp_path, stored):
    report = exported(tmp_path / "m.npy", task=task(), rounds=3)
    again = ExportReport.from_dict(json.loads(json.dumps(report.to_dict())) | {"of a later version": 1})
    assert again == report
    assert report.checked.startswith("numpy ")


def test_a_destination_that_would_destroy_something_else_is_refused(tmp_path, stored):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidInput, match="is a folder; give the path of a file"):
        exported(tmp_path / "folder")
    stored.layout = "folder"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InvalidInput, match="is a file; stored writes a folder"):
        exported(tmp_path / "file")
    (tmp_path / "folder" / "mine").write_text("mine")
    with pytest.raises(InvalidInput, match="holds files that no export wrote"):
        exported(tmp_path / "folder")
    assert Path(tmp_path / "folder" / "mine").read_text() == "mine"


def test_the_artifact_fits_a_space_found_elsewhere(tmp_path, stored):
    space = SearchSpace.from_model(linear(), batches()[0][0], formats=["w4", "w8"])
    report = exported(tmp_path / "m.npy", space=space, rounds=0)
    assert report.latency is None
    assert report.seconds > 0
