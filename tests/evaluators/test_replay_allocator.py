"""Freed memory is kept inside the block and given back after the outermost."""

from pathlib import Path

import pytest
import torch
from bitfront.evaluators.replay import freed_memory_kept


def resident():
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def test_freed_memory_stays_resident_until_the_outermost_block_ends():
    size = 100_000_000
    before = resident()
    with freed_memory_kept():
        with freed_memory_kept():
            torch.ones(size // 4)
        assert resident() > before + size // 2
    assert resident() < before + size // 2


def test_an_environment_that_sets_the_thresholds_is_left_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")
    before = resident()
    with freed_memory_kept():
        torch.ones(25_000_000)
        assert resident() < before + 50_000_000


def test_it_ends_with_an_exception():
    before = resident()
    with pytest.raises(KeyError), freed_memory_kept():  # noqa: PT012
        torch.ones(25_000_000)
        raise KeyError
    assert resident() < before + 50_000_000
