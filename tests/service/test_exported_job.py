"""A model that was sent as an exported program: from the upload over HTTP to the front that a worker finds."""

import hashlib
import io
import json
import zipfile

import numpy as np
import torch
from bitfront.service.worker import JobWorker
from torch import nn


def sent(http, kind, name, content):
    answer = http.post("/v1/uploads", params={"kind": kind, "name": name}, content=content)
    assert answer.status_code == 201, answer.text
    assert answer.json()["sha256"] == hashlib.sha256(content).hexdigest()
    return f"upload:{answer.json()['sha256']}"


def program(model, x):
    exported = torch.export.export(model.eval(), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    content = io.BytesIO()
    torch.export.save(exported, content)
    return content.getvalue()


def test_from_upload_to_front(server):
    http, settings = server
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    x = torch.randn(48, 6)
    data = io.BytesIO()
    np.savez(data, inputs=x.numpy())
    place = sent(http, "data", "data.npz", data.getvalue())
    job = {
        "model": {"exported": sent(http, "exported", "net.pt2", program(model, x[:4]))},
        "data": {"calibration": place, "validation": place, "batch": 8},
        "space": {"formats": ["w4", "w8"]},
        "objectives": ["quality", "size_mb"],
        "proxies": ["sqnr"],
        "search": {"evaluations": 4},
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
    assert shown["specification"]["model"]["exported"].startswith("upload:")
    front = json.loads(http.get(f"/v1/jobs/{made}/artifacts/front.json").content)
    assert sorted(front["points"][0]["config"]) == ["0", "2", "4"]
    assert {"uniform-w4", "uniform-w8"} <= {point["id"] for point in front["points"]}


def test_a_program_that_calls_more_than_operators_is_not_taken(server):
    http, _ = server
    content = program(nn.Sequential(nn.Linear(6, 3)), torch.randn(4, 6))
    poisoned = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(poisoned, "w") as new:
        for name in old.namelist():
            part = old.read(name)
            if name.endswith("model.json"):
                part = part.replace(b"torch.ops.aten.linear.default", b"torch.hub.load")
            new.writestr(name, part)
    answer = http.post("/v1/uploads", params={"kind": "exported", "name": "net.pt2"}, content=poisoned.getvalue())
    assert answer.status_code == 422
    assert "the operator 'torch.hub.load' is not allowed" in answer.json()["error"]["message"]
    assert http.get("/v1/uploads").json() == []
