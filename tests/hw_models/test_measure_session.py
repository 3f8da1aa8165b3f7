"""Plans, and working through them with a backend that keeps its own clock."""

import dataclasses
import json

import pytest
from bitfront.errors import InvalidInput, NotMeasured
from bitfront.hw_models import KernelRow
from bitfront.hw_models.measure import Timed, Trial, classes, execute, in_formats, known_rows, make_plan, product
from bitfront.hw_models.measure.backend import STEPS, held_bytes, work
from bitfront.hw_models.measure.session import _alone
from bitfront.hw_models.timing import MIN_SAMPLES, WARM_UP

FORMATS = ("fp32", "w8a8", "int4_wo")


def kernels(shapes=((1, 64, 64), (16, 64, 64), (16, 256, 256), (64, 512, 512))):
    return in_formats([product(*shape) for shape in shapes], FORMATS, "onnxruntime")


class FakeBackend:
    """Times kernels at one multiply-accumulate a nanosecond, and keeps its own clock."""

    where, memory_bytes = "a machine", 10**9

    def __init__(self, fails=(), unstable=(), stop_after=None):
        self.now, self.measured, self.groups = 0.0, [], 0
        self.fails, self.unstable, self.stop_after = fails, list(unstable), stop_after

    def digest(self, kernel):
        return kernel.digest("fake", "x", "r", "1", 1)

    def refusal(self, kernel):
        return "no int4 here" if "int4" in self.fails and kernel.weight_format == "int4" else None

    def seconds(self, kernel):
        return 1e-9 * work(kernel)[0] + 1e-5

    def trial(self, kernel):
        if kernel.weight_format in self.fails:
            raise NotMeasured("it does not run")
        return Trial(1e-8 * held_bytes(kernel), 1e-4, self.seconds(kernel))

    def measure(self, group, seconds, advance=None):
        if self.groups == self.stop_after:
            raise KeyboardInterrupt
        self.groups += 1
        rows = []
        for kernel in group:
            self.measured.append(kernel)
            self.now += 1e-8 * held_bytes(kernel) + (WARM_UP + MIN_SAMPLES) * (self.seconds(kernel) + 1e-4)
            if advance:
                advance(STEPS)
            if kernel in self.unstable:
                self.unstable.remove(kernel)
                rows.append(self.row(kernel, stable=False))
            else:
                rows.append(self.row(kernel))
        return Timed(tuple(rows))

    def row(self, kernel, stable=True):
        time = 1e3 * self.seconds(kernel)
        times = dict.fromkeys(("min_ms", "median_ms", "p90_ms", "p99_ms", "mean_ms", "std_ms", "sigma_ms"), time)
        return KernelRow(
            digest=self.digest(kernel),
            device="fake",
            hardware="x",
            runtime="r",
            runtime_version="1",
            threads=1,
            op=kernel.op,
            weight_format=kernel.weight_format,
            activation_format=kernel.activation_format,
            shape=kernel.shape,
            attributes=kernel.parameters,
            executed=kernel.op,
            conversion_ms=0.0,
            samples=30,
            repeats=1,
            overhead_ms=0.0,
            stable=stable,
            date="2026-11-22",
            **times,
        )

    def clock(self):
        return self.now


def test_plan_names_every_kernel_and_foretells_the_time():
    backend = FakeBackend()
    asked = kernels()
    tried = []
    plan = make_plan(backend, asked, advance=tried.append)
    assert [item.kernel for item in plan.kernels] == asked
    assert sum(tried) == len(classes(asked)) == 3
    backend.measure([item.kernel for item in plan.kernels], 1.0)
    assert 0.8 * backend.now < plan.seconds < 1.6 * backend.now
    for item in plan.kernels:
        assert item.run_seconds == pytest.approx(backend.seconds(item.kernel), rel=0.7)
    table = plan.to_frame()
    assert table["kernels"].sum() == len(asked)
    assert table["samples"].sum() == MIN_SAMPLES * len(asked)
    assert table["seconds"].sum() == pytest.approx(plan.seconds)


def test_formats_of_a_shape_are_timed_together_in_groups_of_bounded_size():
    backend = FakeBackend()
    plan = make_plan(backend, kernels(), group=7)
    assert [len(group) for group in plan.groups] == [6, 6]
    for group in plan.groups:
        assert len({item.kernel.shape for item in group}) == 2
    assert [len(group) for group in make_plan(backend, kernels(), group=2).groups] == [2, 1] * 4
    slow = make_plan(backend, kernels(), group_seconds=1e-3)
    assert [len(group) for group in slow.groups] == [3] * 4
    backend.memory_bytes = 1
    assert [len(group) for group in make_plan(backend, kernels()).groups] == [1] * 12


def test_what_cannot_run_is_left_out_with_its_reason():
    plan = make_plan(FakeBackend(fails=["int4", "int8"]), kernels())
    assert {item.kernel.weight_format for item in plan.kernels} == {"fp32"}
    assert {reason for _, reason in plan.refused} == {"no int4 here", "w8a8: no Gemm of this format ran here"}
    with pytest.raises(InvalidInput, match="nothing to measure on a machine: no int4 here"):
        make_plan(FakeBackend(fails=["int4"]), in_formats([product(1, 64, 64)], ["int4_wo"], "onnxruntime"))


def test_rows_are_written_and_progress_adds_up(tmp_path):
    backend = FakeBackend()
    plan = make_plan(backend, kernels(), group=6)
    told = []
    outcome = execute(plan, backend, tmp_path / "t.parquet", advance=told.append, clock=backend.clock)
    assert sum(told) == pytest.approx(plan.seconds)
    assert len(outcome.rows) == len(known_rows(tmp_path / "t.parquet")) == 12
    assert outcome.seconds == backend.now


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    out = tmp_path / "t.parquet"
    first = FakeBackend(stop_after=1)
    plan = make_plan(first, kernels(), group=6)
    with pytest.raises(KeyboardInterrupt):
        execute(plan, first, out, clock=first.clock)
    assert len(known_rows(out)) == 6
    second = FakeBackend()
    plan = make_plan(second, kernels(), known={row.digest for row in known_rows(out)}, group=6)
    assert plan.known == 6
    execute(plan, second, out, clock=second.clock)
    assert set(first.measured) | set(second.measured) == set(kernels())
    assert not set(first.measured) & set(second.measured)
    assert len(known_rows(out)) == 12
    third = make_plan(FakeBackend(), kernels(), known={row.digest for row in known_rows(out)})
    assert (third.known, third.kernels, third.seconds) == (12, [], 0)


def test_time_is_kept_and_what_is_left_is_told(tmp_path):
    backend = FakeBackend()
    plan = make_plan(backend, kernels(), group=3)
    outcome = execute(plan, backend, tmp_path / "t.parquet", seconds=plan.seconds / 2, clock=backend.clock)
    assert backend.now <= plan.seconds / 2
    assert 0 < len(outcome.rows) < 12
    assert len(outcome.left) + len(outcome.rows) == 12
    nothing = execute(plan, FakeBackend(), tmp_path / "u.parquet", seconds=1e-6, clock=lambda: 0.0)
    assert len(nothing.left) == 12
    assert not (tmp_path / "u.parquet").exists()


def test_unstable_rows_are_rejected_and_tried_again(tmp_path):
    out = tmp_path / "t.parquet"
    shaky = kernels()[4]
    backend = FakeBackend(unstable=[shaky])
    outcome = execute(make_plan(backend, kernels()), backend, tmp_path / "once.parquet", clock=backend.clock)
    assert (len(outcome.rows), outcome.rejected) == (12, ())
    assert backend.measured.count(shaky) == 2
    backend = FakeBackend(unstable=[shaky, shaky])
    outcome = execute(make_plan(backend, kernels()), backend, out, clock=backend.clock)
    assert [each.row.shape for each in outcome.rejected] == [shaky.shape]
    assert len(known_rows(out)) == 11
    again = make_plan(backend, kernels(), known={row.digest for row in known_rows(out)})
    assert [item.kernel for item in again.kernels] == [shaky]
    execute(again, backend, out, clock=backend.clock)
    assert len(known_rows(out)) == 12
    kept = FakeBackend(unstable=[shaky])
    path = tmp_path / "kept.parquet"
    outcome = execute(make_plan(kept, kernels()), kept, path, clock=kept.clock, keep_unstable=True)
    assert [row.shape for row in outcome.rows if not row.stable] == [shaky.shape]


def test_two_runs_do_not_write_one_table(tmp_path):
    out = tmp_path / "t.parquet"
    backend = FakeBackend()
    plan = make_plan(backend, kernels())
    with _alone(out), pytest.raises(InvalidInput, match="another run is writing"):
        execute(plan, backend, out)
    execute(plan, backend, out, clock=backend.clock)


def test_a_table_that_is_none(tmp_path):
    out = tmp_path / "t.parquet"
    out.write_text("no parquet")
    with pytest.raises(InvalidInput, match="not a parquet file"):
        known_rows(out)
    backend = FakeBackend()
    with pytest.raises(InvalidInput, match="not a parquet file"):
        execute(make_plan(backend, kernels()), backend, out)
    assert out.read_text() == "no parquet"
    with pytest.raises(InvalidInput, match=r"cannot write .*; give another --out"):
        execute(make_plan(backend, kernels()), backend, out / "below.parquet")


def test_rows_of_earlier_runs_stay(tmp_path):
    out = tmp_path / "t.parquet"
    backend = FakeBackend()
    execute(make_plan(backend, kernels()), backend, out, clock=backend.clock)
    newer = FakeBackend()
    newer.seconds = lambda kernel: 1.0
    other = in_formats([product(7, 64, 64)], FORMATS, "onnxruntime")
    execute(make_plan(newer, other), newer, out, clock=newer.clock)
    rows = known_rows(out)
    assert len(rows) == 15
    assert rows.find(backend.digest(kernels()[0])).median_ms < 1
    assert json.loads(rows.rows[0].attributes)["bias"] is False
    assert dataclasses.asdict(rows.rows[-1])["median_ms"] == 1000
