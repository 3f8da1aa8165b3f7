"""What a stranger meets first: README, quick start and the example jobs name things that exist."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml
from bitfront import SearchSpace, price, zoo
from bitfront.service.cli import app
from bitfront.service.job import parse_job, read_job
from typer.main import get_command

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICKSTART = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("page", "folder"), [(README, ROOT), (QUICKSTART, ROOT / "docs")], ids=["README", "start"])
def test_links_lead_to_files(page, folder):
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", page) if "://" not in link]
    assert links
    assert [link for link in links if not (folder / link).exists()] == []


def test_commands_exist():
    lines = [line for text in (README, QUICKSTART) for block in blocks(text, "bash") for line in block.splitlines()]
    verbs = [shlex.split(line, comments=True)[1] for line in lines if line.startswith("bitfront ")]
    assert verbs
    assert set(verbs) <= set(get_command(app).commands)
    targets = [shlex.split(line, comments=True)[1] for line in lines if line.startswith("make ")]
    rules = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert targets
    assert set(targets) <= set(rules)


def test_snippets_are_valid():
    for block in blocks(README, "python"):
        ast.parse(block)
    jobs = blocks(README, "yaml")
    assert jobs
    for block in jobs:
        parse_job(yaml.safe_load(block), "README.md")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_jobs_are_valid(path):
    job, folder = read_job(path)
    assert folder == ROOT / "examples"
    assert job.name


def test_the_demo_asks_for_what_no_8_bit_format_gives():
    """Its budget lies between 4 and 8 bits, so only a mixture or a coarse uniform format can be the answer."""
    job, _ = read_job(ROOT / "examples" / "efficientnet_lite0.yaml")
    assert job.constraints.keys() == {"size_mb"}
    entry = zoo.load("efficientnet_lite0", calibration=2, validation=2, holdout=2)
    space = SearchSpace.from_model(entry.model, entry.example_inputs, formats=job.space.formats)
    prices = price(space, metrics=["size_mb"])
    weighs = {name: prices.of(uniform)["size_mb"].value for name, uniform in space.uniforms().items()}
    assert weighs["w4"] < job.constraints["size_mb"] < weighs["w8"]
