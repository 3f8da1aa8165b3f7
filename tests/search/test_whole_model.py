"""Whole models measured as a stage: kept under their inputs, given to prices, kept with them."""

import pytest
import torch
from torch import nn

pytest.importorskip("onnxruntime")

from bitfront.errors import InvalidInput
from bitfront.evaluators import Recipe, calibrate
from bitfront.hw_models.network import WholeModel
from bitfront.search.progress import Silent
from bitfront.search.stage import Ledger
from bitfront.search.stages import priced
from bitfront.search.whole_model import designs, export_and_time, measured_whole
from bitfront.space import SearchSpace
from bitfront.store import Store
from bitfront.task import Task


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(), nn.Linear(512, 4))
    data = [(torch.randn(4, 3, 8, 8), torch.randint(0, 4, (4,))) for _ in range(2)]
    task = Task(model, calibration=data, validation=data, holdout=data)
    space = SearchSpace.from_model(model, task.calibration[0].piece(0, 2), formats=["w4", "w8a8"])
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('whole') / 'store.db'}")
    yield task, space, calibrate(task, space, Recipe()), store
    store.close()


def test_measured_once_and_in_the_prices(case):
    task, space, calibration, store = case
    watcher, ledger = Notes(), Ledger()
    first = measured_whole(task, space, calibration, 1, store, watcher, exports=3, ledger=ledger)
    assert [each.label for each in first.exports[:2]] == ["w8a8", "w4"]
    again = measured_whole(task, space, calibration, 1, store, watcher, exports=3, ledger=ledger)
    assert again.to_dict() == first.to_dict()
    assert watcher.notes == ["whole models: already in the store"]
    assert [(each.ran, each.reused) for each in ledger.ran] == [(1, 0), (0, 1)]
    metrics = ["latency_ms"]
    plain = priced(space, "cpu", 1, metrics, store, watcher)["latency_ms"]
    fitted = priced(space, "cpu", 1, metrics, store, watcher, network=first)["latency_ms"]
    stored = priced(space, "cpu", 1, metrics, store, watcher, network=first)["latency_ms"]
    assert "not counted" in plain.provenance
    assert "fitted to 3 whole models" in fitted.provenance == stored.provenance
    assert isinstance(stored.whole, WholeModel)
    for configuration in designs(space, 3).values():
        choice = space.choice(configuration)
        assert stored.total(choice) == fitted.total(choice)
        assert stored.total(choice) != plain.total(choice)


def test_designs_begin_with_the_uniform_ones(case):
    space = case[1]
    assert list(designs(space, 1)) == ["w8a8"]
    assert list(designs(space, 4)) == ["w8a8", "w4", "mixture 0.0", "mixture 0.1"]


def test_too_few_samples(case):
    task, space, calibration, _ = case
    with pytest.raises(InvalidInput, match="batch 9 needs as many samples"):
        export_and_time(task, space, calibration, {}, 9, Silent())
