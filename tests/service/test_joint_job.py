"""Jobs with ``space.architecture``: the outputs, the report, the exports, and what is refused."""

import io
import json
import logging
import sys

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
import yaml
from bitfront.architecture import Genome
from bitfront.errors import BitfrontError, InvalidInput
from bitfront.search.joint import read_network
from bitfront.service import cli, job_key, joint_job, read_job
from bitfront.service import run_job as running
from bitfront.service.admission import admit
from bitfront.service.assemble import task_of
from bitfront.service.front_document import Front
from bitfront.service.job import parse_job
from bitfront.service.reproduce import reproduce
from bitfront.service.settings import Settings
from bitfront.service.worker import JobWorker
from bitfront.store import Identity, Store
from torch import nn

MODULE = """
import torch
from bitfront.architecture import ArchitectureSpace, Dimension
from torch import nn


def net(width=12, depth=2):
    torch.manual_seed(0)
    middle = [layer for _ in range(depth) for layer in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU())]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)]
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), *middle, *head).eval()


class Nets:
    name, digest = "nets", "5" * 16

    def __init__(self, task, widths):
        self.task = task
        widths = Dimension("width", "width", tuple(widths))
        self.architecture = ArchitectureSpace((widths, Dimension("depth", "depth", (0, 1, 2))))

    def build(self, choices):
        return net(int(choices["width"]), int(choices["depth"]))

    def resolution(self, choices):
        return None


def no_family(task):
    return task
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A job's folder: a module of the user's own, and data."""
    folder = tmp_path_factory.mktemp("joint_job")
    (folder / "own_nets.py").write_text(MODULE)
    generator = np.random.default_rng(0)
    for name, count in (("calib", 32), ("val", 64)):
        images = generator.normal(size=(count, 3, 8, 8)).astype("float32")
        np.savez(folder / f"{name}.npz", inputs=images)
    before = list(sys.path)
    yield folder
    sys.path[:] = before
    sys.modules.pop("own_nets", None)


def job_of(folder, **changes):
    content = {
        "name": "nets",
        "model": {"factory": "own_nets:net"},
        "data": {"calibration": "calib.npz", "validation": "val.npz", "batch": 16},
        "space": {
            "formats": ["w2", "w4", "w8"],
            "architecture": {"family": "own_nets:Nets", "arguments": {"widths": [4, 12]}},
        },
        "objectives": ["quality", "size_mb"],
        "search": {"evaluations": 10},
        "export": {"target": "onnx"},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(content | changes))
    return read_job(folder / "job.yaml")[0]


@pytest.fixture(scope="module")
def finished(folder):
    """A finished run: result, document, output folder."""
    out = folder / "out"
    store = f"sqlite:///{folder}/store.db"
    result, document = running.run_job(job_of(folder), folder, out, store=store, executor="local")
    return result, document, out


def test_every_output_carries_the_architecture(finished):
    result, document, out = finished
    genome = Genome.from_json(out / "best.json")
    assert genome == result.best()
    read = json.loads((out / "front.json").read_text())
    assert read == json.loads(json.dumps(document))
    for point in read["points"]:
        found = Genome.from_dict({"architecture": point["architecture"], "formats": point["config"]})
        assert found.digest == point["digest"]
        sites = {site["name"] for site in read["architectures"][point["architecture_digest"]]["sites"]}
        assert sites == set(point["config"])
    assert {point["baseline"] for point in read["points"]} >= {"w2", "w4", "w8"}
    frame = pd.read_parquet(out / "front.parquet")
    assert [json.loads(each) for each in frame["architecture"]] == [point["architecture"] for point in read["points"]]
    assert Front.parse(read).best_point is not None
    assert {each["kind"] for each in read["family"]["dimensions"]} == {"width", "depth"}


def test_the_report_shows_the_architecture_beside_the_bits(finished):
    _, document, out = finished
    page = (out / "report.html").read_text()
    assert "Which network should I ship for nets?" in page
    assert "Architectures and formats along the front" in page
    best = next(point for point in document["points"] if point["id"] == document["best"])
    for name, value in best["architecture"].items():
        if value != {"width": 12, "depth": 2}[name]:
            assert f"<th>{name}</th><td>{value}</td>" in page.replace("\n", "") or f">{name}<" in page


def test_the_network_is_a_plain_file_and_the_artifact_computes_the_same(folder, finished):
    result, document, out = finished
    best = result.choose().point
    family = result.subnets.joint.family
    module, genome = read_network(out / "export" / f"{best.id}.safetensors", family)
    assert genome == best.genome
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(module(images), result.module(best.genome)(images))
    (export,) = document["exports"]
    assert export["relative_error"] <= export["bound"]
    session = onnxruntime.InferenceSession(out / export["path"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    assert found.shape == (2, 5)
    family.name = "other"
    with pytest.raises(InvalidInput, match="not of 'other'"):
        read_network(out / "export" / f"{best.id}.safetensors", family)
    family.name = "nets"
    with pytest.raises(InvalidInput, match="cannot read the network"):
        read_network(out / "missing.safetensors", family)


def test_any_point_of_a_finished_run_is_exported_later(folder, finished):
    _, document, out = finished
    other = next(point for point in document["points"] if point["id"] not in (document["best"], "uniform-w8"))
    report = running.export_point(out, other["id"], "onnx")
    assert report.relative_error <= report.bound
    exports = json.loads((out / "front.json").read_text())["exports"]
    assert [each["path"] for each in exports][-1] == f"export/{other['id']}.onnx"


def test_a_second_run_measures_nothing(folder, finished):
    result, _, _ = finished
    again, _ = running.run_job(
        job_of(folder), folder, folder / "again", store=f"sqlite:///{folder}/store.db", executor="local"
    )
    assert again.best() == result.best()
    assert sum(ran.ran for ran in joint_job.summed(again.ledger) if ran.stage == "measure") == 0


def command(monkeypatch, *arguments):
    """The exit code of a command line."""
    monkeypatch.setattr(sys, "argv", ["bitfront", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    logging.disable(logging.NOTSET)
    return ended.value.code


def test_a_new_budget_for_a_job_file_is_refused_in_one_line(folder, capsys, monkeypatch):
    job_of(folder)
    store = f"sqlite:///{folder}/none.db"
    assert command(monkeypatch, "front", folder / "job.yaml", "--budget", "size_mb=1", "--store", store) == 2
    told = capsys.readouterr().err
    assert "searches architectures" in told
    assert "bitfront front DIR --budget" in told


def test_the_front_of_a_run_answers_a_budget(finished, capsys, monkeypatch):
    _, document, out = finished
    sizes = sorted(point["prices"]["size_mb"]["value"] for point in document["points"])
    assert command(monkeypatch, "front", out, "--budget", f"size_mb={sizes[2]}", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < len(found["points"]) < len(document["points"])
    assert all(point["prices"]["size_mb"]["value"] <= sizes[2] for point in found["points"])


def test_a_run_is_reproduced_from_its_record(folder, finished):
    _, _, out = finished
    store = Store(f"sqlite:///{folder}/store.db")
    job = next(each for each in store.jobs() if each.out == str(out))
    found = reproduce(job.id, store, folder / "reproduced")
    assert found.verdict == "same to the bit"
    assert found.then.best == found.now.best
    assert found.then.front == found.now.front
    (out / "front.json").rename(out / "front.away")
    with pytest.raises(InvalidInput, match=r"no .*front\.json"):
        reproduce(job.id, store, folder / "reproduced_again")
    (out / "front.away").rename(out / "front.json")
    store.close()


def test_the_model_itself_is_compressed_by_a_family_that_ships(folder):
    space = {
        "formats": ["w4", "w8"],
        "architecture": {"family": "compression", "arguments": {"round_to": 2, "rank": [], "recover": []}},
    }
    job = job_of(folder, space=space, search={"evaluations": 12}, export=None)
    result, document = running.run_job(
        job, folder, folder / "compressed", store=f"sqlite:///{folder}/store.db", executor="local"
    )
    assert document["metric"] == "kl_to_original"  # the original model stays what all are compared with
    assert result.float_model["validation"].value == pytest.approx(0, abs=1e-6)
    smaller = [
        point for point in result.points if point.genome.choices != result.subnets.joint.family.architecture.largest()
    ]
    assert smaller
    assert document["exports"] == []


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        ({"family": "elastik"}, "did you mean 'elastic'"),
        ({"family": "a:b:c"}, "must read 'package.module:function'"),
        ({"family": "elastic", "argumens": {}}, "did you mean"),
    ],
)
def test_what_breaks_the_schema_is_refused(folder, architecture, told):
    with pytest.raises(InvalidInput, match=told):
        job_of(folder, space={"architecture": architecture})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"search": {"stop": {"no_improvement": 3}}}, "does not take search.stop"),
        ({"search": {"fidelity": {"samples": 8}}}, "does not take search.fidelity"),
        ({"search": {"proposers": ["gaps"]}}, "does not take search.proposers"),
        ({"quantization": {"search": "auto"}}, "does not take quantization.search"),
        ({"finetune": {"epochs": 1}}, "does not take finetune"),
    ],
)
def test_keys_of_a_search_for_formats_are_not_ignored(folder, changes, told):
    with pytest.raises(InvalidInput, match=told):
        job_of(folder, **changes)


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        ({"family": "own_nets:Nets", "arguments": {"widht": [1]}}, "takes widths"),
        ({"family": "own_nets:Missing"}, "has no 'Missing'"),
        ({"family": "no_such_module:f"}, "no module 'no_such_module'"),
        ({"family": "own_nets:no_family"}, "Task is no family"),
        ({"family": "nasbench201", "arguments": {"chanels": 4}}, "takes classes, channels"),
    ],
)
def test_families_that_cannot_be_made_are_refused(folder, architecture, told):
    job = job_of(folder, space={"architecture": architecture})
    task, _ = task_of(job, folder)
    with pytest.raises(InvalidInput, match=told):
        joint_job.family_of(job.space.architecture, task, folder)


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        ({"family": "own_nets:Nets"}, "builds registered families only"),
        ({"family": "elastic", "arguments": {"weights": "/etc/net.safetensors"}}, "reads no local paths"),
        ({"family": "elastic", "arguments": {"widht": 1}}, "takes name, width"),
        ({"family": "nasbench201", "arguments": {"channels": 10**9}}, "give at most 512"),
        ({"family": "nasbench201", "arguments": {"seed": {"a": 1}}}, "got dict"),
        ({"family": "compression", "arguments": {"width": [0.5] * 65}}, "65 values"),
        ({"family": "nasbench201", "proxy": "sqrn"}, "sqnr"),
    ],
)
def test_a_service_refuses_what_its_workers_shall_not_build(store, architecture, told):
    content = {"model": {"zoo": "digits_resnet20"}, "space": {"architecture": architecture}}
    with pytest.raises(BitfrontError, match=told):
        admit(content, Identity("ann", "submitter"), Settings(), store)


@pytest.mark.parametrize(
    ("family", "arguments"),
    [("compression", {"round_to": 2}), ("elastic", {"name": "digits"}), ("nasbench201", {"cells": 1})],
)
def test_a_service_takes_registered_families(store, family, arguments):
    space = {"formats": ["w4", "w8"], "architecture": {"family": family, "arguments": arguments}}
    content = {
        "model": {"zoo": "digits_resnet20"},
        "space": space,
        "objectives": ["quality", "size_mb"],
        "constraints": {"size_mb": 0.01},  # less than the zoo model could have: another architecture can
    }
    found = admit(content, Identity("ann", "submitter"), Settings(), store)
    assert found.specification["space"]["architecture"]["family"] == family


def test_keys_of_jobs_without_an_architecture_did_not_change(folder):
    job = job_of(folder, space={"formats": ["w4"]})
    plain = job.space.model_dump(mode="json")
    assert plain.pop("architecture") is None
    other = parse_job({**job.plain(), "space": plain})
    assert job_key.job_key(job, folder) == job_key.job_key(other, folder)
    assert job_key.job_key(job, folder) != job_key.job_key(job_of(folder), folder)


def sent(http, kind, name, content):
    answer = http.post("/v1/uploads", params={"kind": kind, "name": name}, content=content)
    assert answer.status_code == 201, answer.text
    return f"upload:{answer.json()['sha256']}"


def test_a_service_searches_architectures_of_a_model_that_was_sent(server):
    http, settings = server
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    x, program, data = torch.randn(32, 6), io.BytesIO(), io.BytesIO()
    exported = torch.export.export(model, (x[:4],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(exported, program)
    np.savez(data, inputs=x.numpy())
    place = sent(http, "data", "data.npz", data.getvalue())
    job = {
        "model": {"exported": sent(http, "exported", "net.pt2", program.getvalue())},
        "data": {"calibration": place, "validation": place, "batch": 8},
        "space": {
            "formats": ["w4", "w8"],
            "architecture": {"family": "compression", "arguments": {"width": [], "recover": []}},
        },
        "objectives": ["quality", "size_mb"],
        "search": {"evaluations": 6},
        "export": None,
    }
    answer = http.post("/v1/jobs", content=json.dumps(job))
    assert answer.status_code == 201, answer.text
    made = answer.json()["id"]
    worker = JobWorker(settings)
    assert worker.run_once()
    worker.close()
    shown = http.get(f"/v1/jobs/{made}").json()
    assert shown["state"] == "succeeded", shown["conditions"]
    front = json.loads(http.get(f"/v1/jobs/{made}/artifacts/front.json").content)
    assert front["kind"] == "joint"
    assert {"uniform-w4", "uniform-w8"} <= {point["id"] for point in front["points"]}
    assert len(front["architectures"]) > 1
    told = http.get(f"/v1/jobs/{made}/front").json()
    assert {point["id"] for point in told["points"]} >= {"uniform-w4", "uniform-w8"}
    assert told["measured"] >= len(told["points"])
    candidates = http.get(f"/v1/jobs/{made}/candidates").json()["candidates"]
    assert len(candidates) == told["proposed"]
    asked = http.post(f"/v1/jobs/{made}/solve", json={"budgets": {"size_mb": 1.0}})
    assert asked.status_code == 422, asked.text
    assert "searches architectures" in asked.text
