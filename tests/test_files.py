"""A reader sees the old content or the new, never half of it, and no side files stay behind."""

import os
import signal
import subprocess
import sys

import pytest
from bitfront.files import replacing, write_text


def test_write_text_is_utf8_and_makes_the_folder(tmp_path):
    target = tmp_path / "a" / "b.json"
    write_text(target, "2 … 8 µs\n")
    assert target.read_bytes().decode("utf-8").splitlines() == ["2 … 8 µs"]
    write_text(str(target), "new")
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["b.json"]


def test_a_reader_keeps_what_it_has_opened(tmp_path):
    target = tmp_path / "best.json"
    target.write_text("old")
    with target.open() as reader:
        write_text(target, "new")
        assert reader.read() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_inside_leaves_the_old_content(tmp_path, error):
    target = tmp_path / "best.json"
    target.write_text("old")
    with pytest.raises(error), replacing(target) as side:  # noqa: PT012
        side.write_text("half of the n")
        assert target.read_text() == "old"
        raise error
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["best.json"]


def test_an_error_inside_leaves_no_new_file(tmp_path):
    with pytest.raises(RuntimeError), replacing(tmp_path / "best.json") as side:  # noqa: PT012
        side.write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_a_body_that_writes_nothing_does_not_empty_the_target(tmp_path):
    target = tmp_path / "best.json"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(target):
        pass
    assert target.read_text() == "old"


def test_a_killed_writer_leaves_the_old_content(tmp_path):
    target = tmp_path / "best.json"
    target.write_text("old")
    program = (
        "import os, signal, sys\nfrom bitfront.files import replacing\n"
        "with replacing(sys.argv[1]) as side:\n"
        "    side.write_text('half of the n')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"
    write_text(target, "new")
    assert target.read_text() == "new"
