"""Timing by event pairs on a device of its own making: time passes only where the test says so."""

import dataclasses

import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.hw_models.measure import CudaBackend, conversion, in_format, make_plan, product
from bitfront.hw_models.measure.cuda import device_name, read_state, require_cuda
from bitfront.hw_models.measure.event_timing import WARM_UP, Launch, State, counting, sample
from bitfront.hw_models.measure.session import execute, known_rows
from bitfront.hw_models.timing import FEWEST_SAMPLES, MAX_SAMPLES, MIN_SAMPLES
from hypothesis import given
from hypothesis import strategies as st

PAIR_MS = 0.002


class FakeEvent:
    def __init__(self, gpu):
        self.gpu = gpu

    def record(self):
        self.gpu.log.append("record")
        self.gpu.now += PAIR_MS / 2
        self.at = self.gpu.now

    def elapsed_ms(self, later):
        return later.at - self.at + PAIR_MS / 2


class FakeGpu:
    """A device whose clock is ``now`` in milliseconds."""

    hardware, capability, driver, watched, free_bytes = "NVIDIA H100 80GB HBM3", (9, 0), "580.1", True, 80 * 10**9

    def __init__(self, states=None):
        self.now, self.log, self.rounds = 0.0, [], 0
        self.states = states or (lambda index: State(1980.0, 2619.0, 300.0))

    def event(self):
        return FakeEvent(self)

    def synchronize(self):
        self.log.append("synchronize")

    def flush(self):
        self.log.append("flush")
        self.now += 0.1

    def capture(self, call):
        call()
        self.log.append("captured")

        def replay():
            call()
            self.now += 0.04

        return replay

    def state(self):
        self.rounds += 1
        return self.states(self.rounds - 1)

    def clock(self):
        return 1e-3 * self.now


def launch(gpu, ms, name="k", repeats=1):
    def prepare():
        gpu.log.append(f"prepare {name}")
        gpu.now += 0.01

    def call():
        gpu.log.append(name)
        gpu.now += ms(gpu.rounds) if callable(ms) else ms

    return Launch(prepare, call, repeats)


def test_a_sample_is_the_call_alone_divided_by_its_repeats():
    gpu = FakeGpu()
    taken = sample(gpu, [launch(gpu, 0.5, "a"), launch(gpu, 0.8, "b", repeats=8)], "graph", 10, clock=gpu.clock)
    assert np.allclose(taken.timings[0].samples, 0.5e-3)
    assert np.allclose(taken.timings[1].samples, 0.1e-3)
    assert taken.overhead == pytest.approx(1e-3 * PAIR_MS)
    assert all(timing.stable and len(timing.samples) == MIN_SAMPLES for timing in taken.timings)
    assert taken.state == State(1980.0, 2619.0, 300.0)


@pytest.mark.parametrize(("mode", "between"), [("graph", []), ("eager", ["synchronize"])])
def test_cache_is_cold_and_input_fresh_before_every_sample(mode, between):
    gpu = FakeGpu()
    sample(gpu, [launch(gpu, 0.5, "a"), launch(gpu, 0.5, "b")], mode, 10, clock=gpu.clock)
    warm = ["prepare a", "a"] * WARM_UP + ["prepare b", "b"] * WARM_UP + ["synchronize"]
    assert gpu.log[: len(warm)] == warm
    turn = [["flush", f"prepare {name}", *between, "record", name, "record"] for name in "ab"]
    empty = ["flush", *between, "record", "record"]
    once = [*turn[0], *turn[1], *empty, "synchronize"]
    assert gpu.log[len(warm) :] == once * MIN_SAMPLES


def test_throttled_rounds_are_left_out_and_made_up_for():
    def throttled(index):
        return index % 3 == 1

    gpu = FakeGpu(lambda index: State(1500.0 if throttled(index) else 1980.0))
    slow = launch(gpu, lambda index: 2.0 if throttled(index) else 1.0)
    taken = sample(gpu, [slow], "graph", 10, clock=gpu.clock)
    assert np.allclose(taken.timings[0].samples, 1e-3)
    assert len(taken.timings[0].samples) == MIN_SAMPLES
    assert taken.left_out == sum(map(throttled, range(taken.rounds))) > 0
    assert taken.state.clock_mhz == 1980.0


def test_heat_leaves_a_round_out_whatever_the_clock():
    gpu = FakeGpu(lambda index: State(1980.0, slowed=index < 5))
    taken = sample(gpu, [launch(gpu, lambda index: 9.0 if index < 5 else 1.0)], "graph", 10, clock=gpu.clock)
    assert np.allclose(taken.timings[0].samples, 1e-3)
    assert (taken.left_out, taken.state.slowed) == (5, False)


def test_a_device_that_is_always_slowed_down_gives_no_stable_row():
    gpu = FakeGpu(lambda index: State(1200.0, slowed=True))
    taken = sample(gpu, [launch(gpu, 1.0)], "graph", 1.0, clock=gpu.clock)
    assert taken.state.slowed
    assert taken.rounds <= 2 * MAX_SAMPLES


def test_time_is_bounded():
    gpu = FakeGpu()
    steps = []
    taken = sample(gpu, [launch(gpu, 1000.0)], "graph", 0.5, steps.append, gpu.clock)
    assert taken.rounds == FEWEST_SAMPLES
    assert not taken.timings[0].stable
    assert sum(steps) == MIN_SAMPLES


def test_noise_is_sampled_on():
    rng = np.random.default_rng(0)
    gpu, steps = FakeGpu(), []
    taken = sample(gpu, [launch(gpu, lambda _: rng.uniform(1, 2))], "graph", 100, steps.append, gpu.clock)
    assert len(taken.timings[0].samples) == MAX_SAMPLES
    assert sum(steps) == MIN_SAMPLES


@given(st.lists(st.tuples(st.floats(1, 3000), st.booleans()), min_size=1))
def test_rounds_at_the_highest_clock_count_unless_slowed(seen):
    states = [State(clock, slowed=slowed) for clock, slowed in seen]
    good, top = counting(states), max(clock for clock, _ in seen)
    for (clock, slowed), counts in zip(seen, good, strict=True):
        assert counts == (not slowed and clock >= 0.95 * top)


def test_clocks_that_cannot_be_read_leave_nothing_out():
    assert counting([State()] * 4).all()


def test_rows_of_a_gpu(tmp_path):
    gpu = FakeGpu()
    kernels = [in_format(product(32, 64, 128), name, "torch") for name in ("bf16", "w8a8", "int8_wo", "int4_wo")]
    kernels.append(conversion("quantize_fp8", (32, 128)))
    for mode in ("graph", "eager"):
        backend = CudaBackend(gpu, device_name(gpu.hardware), mode, torch_device="cpu")
        plan = make_plan(backend, kernels)
        assert [item.kernel for item in plan.kernels] == kernels
        outcome = execute(plan, backend, tmp_path / "t.parquet")
        assert len(outcome.rows) == len(kernels)
        for row in outcome.rows:
            assert (row.device, row.hardware, row.driver) == ("nvidia-h100-sxm", gpu.hardware, "580.1")
            assert (row.mode, row.cache, row.clock_mhz, row.power_w) == (mode, "cold", 1980.0, 300.0)
            assert row.stable
            assert row.samples >= MIN_SAMPLES
            assert row.repeats == (8 if mode == "graph" else 1)
            assert row.median_ms == pytest.approx(0.005 if mode == "graph" else PAIR_MS / 10)
        assert [(row.m, row.n, row.k) for row in outcome.rows[:2]] == [(32, 64, 128)] * 2
    assert len(known_rows(tmp_path / "t.parquet")) == 2 * len(kernels)


def test_a_kernel_that_fails_beside_others_is_refused_and_they_are_timed(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("CUDA out of memory")

    backend = CudaBackend(FakeGpu(), "nvidia-h100-sxm", "eager", torch_device="cpu")
    kernels = [in_format(product(32, 64, 128), name, "torch") for name in ("bf16", "fp8")]
    monkeypatch.setattr(torch, "_scaled_mm", broken)
    timed = backend.measure(kernels, 1.0)
    assert [row.weight_format for row in timed.rows] == ["bf16"]
    assert "out of memory" in timed.refused[kernels[1]]
    plan = make_plan(backend, kernels)
    assert [item.kernel for item in plan.kernels] == kernels[:1]
    assert plan.refused[0][0] == kernels[1]


def test_a_slowed_device_gives_rows_that_are_rejected(tmp_path):
    backend = CudaBackend(FakeGpu(lambda _: State(900.0, slowed=True)), "nvidia-x", "eager", torch_device="cpu")
    plan = make_plan(backend, [in_format(product(32, 64, 128), "bf16", "torch")])
    outcome = execute(plan, backend, tmp_path / "t.parquet")
    assert not outcome.rows
    assert len(outcome.rejected) == 1
    assert not (tmp_path / "t.parquet").exists()


def test_digest_tells_modes_and_drivers_apart():
    kernel = in_format(product(32, 64, 128), "bf16", "torch")
    graph = CudaBackend(FakeGpu(), "nvidia-h100-sxm", "graph")
    newer = FakeGpu()
    newer.driver = "590.0"
    others = [dataclasses.replace(graph, mode="eager"), dataclasses.replace(graph, gpu=newer)]
    assert len({backend.digest(kernel) for backend in [graph, *others]}) == 3


def test_names_of_gpus():
    assert device_name("NVIDIA H200") == "nvidia-h200-sxm"
    assert device_name("NVIDIA A100-SXM4-80GB") == "nvidia-a100-sxm-80gb"
    assert device_name("NVIDIA GeForce RTX 4090") == "nvidia-geforce-rtx-4090"


@pytest.mark.parametrize(
    ("reasons", "slowed"),
    # NVML's bits: idle 1, application clocks 2, power cap 4, hardware slowdown 8, heat 0x20 and 0x40, power brake 0x80
    [(0, False), (1, False), (2, False), (4, False), (8, True), (0x20, True), (0x40, True), (0x80 | 4, True)],
)
def test_states_of_the_management_library(reasons, slowed):
    class Nvml:
        NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2

        @staticmethod
        def nvmlDeviceGetClockInfo(handle, kind):
            return {1: 1755, 2: 2619}[kind]

        @staticmethod
        def nvmlDeviceGetPowerUsage(handle):
            return 412_300

        @staticmethod
        def nvmlDeviceGetCurrentClocksThrottleReasons(handle):
            return reasons

    assert read_state(Nvml, None) == State(1755.0, 2619.0, 412.3, slowed)


def test_without_a_gpu_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidInput, match=r"--device cuda: .*; run on a machine with an NVIDIA GPU"):
        require_cuda()
