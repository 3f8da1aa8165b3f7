"""Asked for all proxies, those that cannot score a model, its data or its space are named and left out."""

import bitfront as bf
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.evaluators import calibrate
from bitfront.proxies import proxies
from bitfront.search import Silent
from bitfront.search.stages import scores_of
from bitfront.store import Store
from torch import nn


def scored(tmp_path, names, leave_out):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    data = [torch.randn(8, 6) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w2", "w4"])
    store = Store(f"sqlite:///{tmp_path}/store.db")
    return scores_of(task, space, calibrate(task, space), names, 0, store, Silent(), leave_out)


def test_every_proxy_scores_or_is_left_out_with_its_reason(tmp_path):
    found, left_out = scored(tmp_path, proxies(), leave_out=True)
    assert {*found} | {*left_out} == {*proxies()}
    assert not {*found} & {*left_out}
    assert "labelled calibration" in left_out["empirical_fisher"]
    assert "round activations" in left_out["activation_trace"]
    assert len(found) > 20


def test_what_is_asked_for_by_name_is_an_error(tmp_path):
    with pytest.raises(InvalidInput, match="labelled calibration"):
        scored(tmp_path, ["weight_mse", "empirical_fisher"], leave_out=False)


def test_an_unknown_name_is_never_left_out(tmp_path):
    with pytest.raises(InvalidInput, match="unknown proxy 'weight_msa'"):
        scored(tmp_path, ["weight_msa"], leave_out=True)
