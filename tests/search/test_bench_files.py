"""A stored bench: what it holds, that it is read back without torch, and that mixed or changed files are refused."""

import json
import subprocess
import sys

import bitfront as bf
import numpy as np
import pandas as pd
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.formats import Format
from bitfront.proxies import sensitivity
from bitfront.search import LocalExecutor, build_bench, load_bench
from bitfront.search.bench_draws import bench_configurations, bench_draws
from torch import nn

FORMATS = ["w2", "w4", "w8", "w4a8", "w8a8"]


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(9, 6), nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4)
    )
    data = [torch.randint(0, 9, (16,)) for _ in range(3)]
    return bf.Task(model, calibration=data[:1], validation=data[1:2], holdout=data[2:], quality="kl", name="tokens")


@pytest.fixture(scope="module")
def space(task):
    return bf.SearchSpace.from_model(task.model, task.calibration[0], formats=FORMATS, ties=[["1", "5"]])


class Counting(LocalExecutor):
    count = 0

    def drive(self, rounds, recipe, commit):
        def counted(outcome):
            commit(outcome)
            self.count += 1

        super().drive(rounds, recipe, counted)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('bench')}/store.db"


@pytest.fixture(scope="module")
def bench(task, space, store):
    return build_bench(task, space, evaluations=24, seed=5, store=store)


def test_a_bench_holds_what_was_drawn_measured_and_priced(task, space, bench):
    draws = bench_draws(space, 24, 5)
    assert bench.configurations == [each.configuration for each in draws]
    assert list(bench.frame["digest"]) == [each.configuration.digest for each in draws]
    assert list(bench.frame["origin"]) == [each.origin for each in draws]
    assert set(bench.frame["split"]) == {"validation"}
    evaluator = bf.evaluators.FakeQuantEvaluator(task, space)
    for index in (0, 7, 23):
        found = evaluator.evaluate(bench.configurations[index])
        row = bench.frame.iloc[index]
        assert row["value"] == pytest.approx(found.value, rel=1e-9)
        assert row["low"] <= row["value"] <= row["high"]
    exact = bf.price(space, metrics=["size_mb", "bops", "avg_bits"])
    for name in ("size_mb", "bops", "avg_bits"):
        assert list(bench.frame[name]) == [exact.of(each)[name].value for each in bench.configurations]
    assert bench.float_quality == 0
    table = sensitivity(task, space, "weight_mse")
    assert np.allclose(bench.predicted(table.values), [table.of(each) for each in bench.configurations])


def test_a_saved_bench_is_read_back_whole(bench, tmp_path):
    bench.save(tmp_path / "bench")
    assert sorted(path.name for path in (tmp_path / "bench").iterdir()) == [
        "bench.json", "bench.parquet", "statistics.npz",
    ]  # fmt: skip
    found = load_bench(tmp_path / "bench")
    assert found.digest == bench.digest
    assert found.configurations == bench.configurations
    pd.testing.assert_frame_equal(found.frame, bench.frame)
    assert found.statistics.digest == bench.statistics.digest
    assert (found.name, found.metric, found.float_quality) == ("tokens", "kl", 0)
    assert found.details["recipe"]["weights"] == "mse"
    assert found.details["ties"] == [["1", "5"]]
    table = pd.read_parquet(tmp_path / "bench" / "bench.parquet")
    assert list(table["site:3"]) == [each["3"] for each in bench.configurations]


def test_reading_needs_no_torch(bench, tmp_path):
    bench.save(tmp_path / "bench")
    script = (
        "import sys; sys.modules['torch'] = None\n"  # importing torch is an error from here on
        "from bitfront.search.bench_files import load_bench\n"
        "from bitfront.search import load_bench as lazily\n"
        f"print(lazily({str(tmp_path / 'bench')!r}).digest, load_bench is lazily)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [bench.digest, "True"], done.stderr


def test_nothing_is_measured_or_collected_twice(task, space, store, bench, monkeypatch):
    counting = Counting()
    monkeypatch.setattr("bitfront.search.bench_build.collected", lambda *given, **more: pytest.fail("collected again"))
    again = build_bench(task, space, evaluations=24, seed=5, store=store, executor=counting)
    assert counting.count == 0
    assert again.digest == bench.digest
    assert again.details["statistics"] == bench.details["statistics"]
    more = build_bench(task, space, evaluations=30, seed=5, store=store, executor=counting)
    assert counting.count == 6
    assert more.configurations[:24] == bench.configurations


def test_a_save_that_fails_leaves_the_old_bench(bench, tmp_path, monkeypatch):
    bench.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(self, path):
        raise OSError("disk full")

    monkeypatch.setattr("bitfront.proxies.formulas.SiteStatistics.save", fail)
    with pytest.raises(OSError, match="disk full"):
        bench.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_that_do_not_belong_together_are_refused(task, space, store, bench, tmp_path):
    other = build_bench(task, space, evaluations=10, seed=6, store=store)
    bench.save(tmp_path)
    other.save(tmp_path / "other")
    for name in ("bench.parquet", "statistics.npz"):
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes((tmp_path / "other" / name).read_bytes())
        with pytest.raises(InvalidInput, match=f"{name} is not the file"):
            load_bench(tmp_path)
        (tmp_path / name).write_bytes(kept)
    document = json.loads((tmp_path / "bench.json").read_text())
    for change, message in (
        ({"schema": 99}, "another schema"), ({"points": 3}, "digests"), ({"files": 1}, "holds no bench"),
    ):  # fmt: skip
        (tmp_path / "bench.json").write_text(json.dumps({**document, **change}))
        with pytest.raises(InvalidInput, match=message):
            load_bench(tmp_path)
    (tmp_path / "bench.json").write_text("[")
    with pytest.raises(InvalidInput, match="holds no bench"):
        load_bench(tmp_path)
    (tmp_path / "bench.json").unlink()
    with pytest.raises(InvalidInput, match=r"bench\.json is missing; make it with `bitfront bench build"):
        load_bench(tmp_path)


def test_weights_alone_keep_activations_as_the_model_computes_them(space):
    found = bench_configurations(space, 12, vary="weights")
    assert not any(Format.parse(name).quantizes_activations for each in found for name in each.values())
    assert len({each["3"] for each in found}) == 3


def test_activations_alone_keep_the_weights_and_spread_over_bit_operations(space):
    draws = bench_draws(space, 100, vary="activations")
    formats = {name for each in draws for name in each.configuration.values()}
    assert formats == {"w8", "w8a8"}
    assert all(each.configuration["0"] == "w8" for each in draws)  # an embedding has no activation to round
    assert len(draws) == 4  # two ties: (1, 5) and 3
    assert {each.origin for each in draws} <= {"random", "stratified"}


def test_a_space_with_nothing_to_vary_is_refused(task):
    for formats, vary in ((["w4", "w8"], "activations"), (["w8", "w8a8"], "weights")):
        space = bf.SearchSpace.from_model(task.model, task.calibration[0], formats=formats)
        with pytest.raises(InvalidInput, match=f"vary={vary}"):
            bench_draws(space, 10, vary=vary)
    with pytest.raises(InvalidInput, match="choose both, weights or activations"):
        bench_draws(space, 10, vary="formats")
    with pytest.raises(InvalidInput, match="at least 3"):
        build_bench(task, space, evaluations=2)


def test_the_draws_of_a_bench_do_not_change():
    """Long measurements go on from the store: another draw would measure everything again."""
    model = nn.Sequential(nn.Linear(6, 16), nn.Linear(16, 24), nn.Linear(24, 4))
    space = bf.SearchSpace.from_model(model, torch.zeros(2, 6), formats=["w2", "w4", "w8"], ties="none")
    found = [tuple(each.values()) for each in bench_configurations(space, 6, seed=0)]
    assert found == [
        ("w8", "w2", "w8"), ("w8", "w4", "w4"), ("w2", "w4", "w2"), ("w2", "w2", "w8"), ("w4", "w8", "w2"),
        ("w8", "w4", "w8"),
    ]  # fmt: skip
