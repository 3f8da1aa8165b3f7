"""The page about the job file says what the schema says, and the examples are valid jobs."""

from pathlib import Path

import pytest
from bitfront.service import read_job
from bitfront.service.job_reference import reference

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date():
    assert (ROOT / "docs/job.md").read_text() == reference()


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_are_valid(path):
    job, folder = read_job(path)
    assert job.title
    assert folder == path.parent
