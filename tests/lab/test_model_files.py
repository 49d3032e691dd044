"""Model files: what is written is what is read, and nothing else is read; and ONNX."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ahh_federated as ahh
from ahh_federated.encoding import dump
from ahh_federated.lab.models.files import read_model, write_model
from ahh_federated.lab.models.forms import Network
from ahh_federated.runtimes.frames import read_columns
from tests.lab import modelling
from tests.lab.modelling import ASKS, OUTCOMES

OTHERS = modelling.rows(300, seed=7)
Content = dict[str, Any]


def said(model: Any) -> np.ndarray:
    columns = read_columns(OTHERS, model.columns, model.cases.values())
    return np.asarray(model.predicted(model.linear(columns, len(OTHERS))))


@pytest.mark.parametrize("ask", ASKS)
def test_what_is_written_is_what_is_read(ask, tmp_path):
    model = modelling.results().model(ask)
    assert model.save(tmp_path / "model.json") == [tmp_path / "model.json"]
    loaded = ahh.load_model(tmp_path / "model.json")
    assert type(loaded) is type(model)
    assert np.array_equal(said(loaded.model_), said(model.model_), equal_nan=True)
    assert loaded.receipt_ == model.receipt_
    assert loaded.summary().equals(model.summary())
    assert loaded.model_.recalibration == model.model_.recalibration
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "model.json").read_bytes()


@pytest.mark.parametrize("family", OUTCOMES)
def test_a_network_is_written_with_its_tensors_beside_it(family, tmp_path):
    model = modelling.network(family, "relu", unknown=True)
    assert [path.name for path in write_model(model, tmp_path / "model.json")] == ["model.json", "model.safetensors"]
    loaded = read_model(tmp_path / "model.json")
    assert isinstance(loaded.form, Network)
    assert np.array_equal(said(loaded), said(model), equal_nan=True)
    assert loaded.family == family


FIRST: Content = {  # as version 0.1 wrote it
    "format": "ahh-model/1",
    "outcome": "heavy",
    "definition": "bmi >= 20",
    "levels": ["no", "yes"],
    "indicators": True,
    "columns": {
        "small": {"levels": ["no", "yes"], "when": "weight < 2.5"},
        "weight": {"range": [0.5, 5.5], "unit": "kg", "missing": [9.0]},
    },
    "equation": {
        "intercept": -2.0,
        "terms": [
            {"column": "small", "level": "yes", "coefficient": 0.75},
            {"column": "small", "level": "not known", "coefficient": -0.5},
            {"column": "weight", "level": None, "coefficient": 0.5, "clip": [1.0, 5.0], "centre": 3.0},
            {"column": "weight", "level": "not known", "coefficient": 0.125},
        ],
    },
    "terms": [
        {
            "name": "(intercept)",
            "column": None,
            "level": None,
            "unit": None,
            "coefficient": -2.0,
            "se_privacy": 0.1,
            "se_sampling": 0.1,
            "se": 0.14,
            "odds_ratio": 0.1,
            "low": 0.05,
            "high": 0.2,
            "p": 0.01,
        }
    ],
    "receipt": {
        "stamp": "",
        "study": "growth",
        "version": 1,
        "digest": "0" * 64,
        "permit": "p",
        "epsilon": 3.0,
        "delta": 1e-6,
        "neighbours": "add-or-remove-one",
        "noise": "each-node",
        "partners": ["north"],
        "messages": 6,
    },
}


@pytest.mark.parametrize("indicators", [True, False])
def test_a_file_of_the_first_form_is_still_read(indicators, tmp_path):
    (tmp_path / "old.json").write_text(json.dumps({**FIRST, "indicators": indicators}))
    model = ahh.load_model(tmp_path / "old.json")
    frame = pd.DataFrame({"small": ["yes", "no", None, "no"], "weight": [3.0, 9.0, 2.0, 5.4]})
    expected = [-2 + 0.75 + 1.5, -2 + 1.5 + 0.125, -2 - 0.5 + 1.0, -2 + 2.5]
    if not indicators:
        expected[1] = expected[2] = math.nan
    assert np.allclose(model.decision_function(frame), expected, rtol=0, atol=1e-12, equal_nan=True)
    assert model.coef_.tolist() == ([[0.75, -0.5, 0.5, 1.625]] if indicators else [[0.75, 0.5]])
    assert model.receipt_["epsilon"] == 3.0
    model.save(tmp_path / "new.json")
    again = ahh.load_model(tmp_path / "new.json")
    assert np.array_equal(again.decision_function(frame), model.decision_function(frame), equal_nan=True)


def sealed(content: Content) -> str:
    """As somebody writes it who edits on purpose."""
    own = {name: value for name, value in content.items() if name != "sha256"}
    return json.dumps({**own, "sha256": hashlib.sha256(dump(own)).hexdigest()})


def edited(change: Callable[[Content], Any], ask: str = "values") -> str:
    return sealed(changed(change, ask))


def changed(change: Callable[[Content], Any], ask: str = "values") -> Content:
    place = Path(modelling.TEMPORARY.name) / "model.json"
    write_model(modelling.model(ask), place)
    content: Content = json.loads(place.read_text())
    change(content)
    return content


def put(*path: Any, value: Any) -> Callable[[Content], None]:
    """A change of one place."""

    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value

    return change


WEIGHT = ("equation", "effects", 2)
HOSTILE = {
    "edited": lambda: json.dumps(changed(put("equation", "intercept", value=1.0))),
    "unsealed": lambda: json.dumps(changed(lambda c: c.pop("sha256"))),
    "not JSON": lambda: "{" * 100_000,
    "deep": lambda: '{"a":' * 50_000 + "1" + "}" * 50_000,
    "list": lambda: "[]",
    "twice": lambda: '{"format": "ahh-model/2", "format": "ahh-model/2"}',
    "other form": lambda: edited(put("format", value="ahh-model/9")),
    "infinite": lambda: edited(put("equation", "intercept", value=0.5)).replace("0.5", "1e999", 1),
    "NaN": lambda: edited(put("equation", "intercept", value=0.5)).replace('"intercept": 0.5', '"intercept": NaN', 1),
    "large": lambda: edited(put("equation", "intercept", value=1e40)),
    "long number": lambda: edited(put("equation", "intercept", value=10**300)),
    "text for number": lambda: edited(put("equation", "intercept", value="0.5")),
    "true for number": lambda: edited(put("equation", "intercept", value=True)),
    "unknown key": lambda: edited(put("extra", value=1)),
    "unknown key within": lambda: edited(put(*WEIGHT, "extra", value=1)),
    "key gone": lambda: edited(lambda c: c.pop("receipt")),
    "receipt key": lambda: edited(put("receipt", "signed", value="yes")),
    "receipt list": lambda: edited(put("receipt", value=[])),
    "control character": lambda: edited(put("receipt", "permit", value="a\x1b[2Jb")),
    "long text": lambda: edited(put("receipt", "permit", value="a" * 30_000)),
    "level gone": lambda: edited(lambda c: c["equation"]["effects"][0]["levels"].pop("boy")),
    "level more": lambda: edited(put("equation", "effects", 0, "levels", "dog", value=1.0)),
    "other column": lambda: edited(put(*WEIGHT, "column", value="height")),
    "column no text": lambda: edited(put(*WEIGHT, "column", value=["weight"])),
    "unequal curve": lambda: edited(put(*WEIGHT, "at", value=[1.0, 2.0])),
    "falling curve": lambda: edited(_reversed),
    "one point": lambda: edited(lambda c: c["equation"]["effects"][2].update(at=[1.0], value=[1.0])),
    "no curve": lambda: edited(lambda c: c["equation"]["effects"][2].update(at=[], value=[])),
    "many points": lambda: edited(lambda c: c["equation"]["effects"][2].update(at=list(range(999)), value=[0.0] * 999)),
    "many effects": lambda: edited(lambda c: c["equation"].update(effects=c["equation"]["effects"] * 500)),
    "effects no list": lambda: edited(put("equation", "effects", value={})),
    "line factor": lambda: edited(_line_factor),
    "low above high": lambda: edited(put("equation", "products", 0, "low", value=1e20)),
    "columns empty": lambda: edited(put("columns", value={})),
    "bad range": lambda: edited(put("columns", "weight", "range", value=[5.0, 1.0])),
    "bad name": lambda: edited(lambda c: c["columns"].update({"../x": c["columns"]["weight"]})),
    "bad condition": lambda: edited(put("cases", value={"small": {"when": "__import__('os')", "label": "x"}})),
    "family": lambda: edited(put("family", value="binary")),
    "families": lambda: edited(put("family", value="everything")),
    "analysis": lambda: edited(put("analysis", value="scores")),
    "analysis no text": lambda: edited(put("analysis", value=None)),
    "software": lambda: edited(put("software", value="0.1")),
    "terms gone": lambda: edited(lambda c: c["estimates"].pop("terms")),
    "terms other": lambda: edited(put("estimates", "terms", value=7)),
    "curves other": lambda: edited(put("estimates", "curves", "weight", value=[1])),
    "estimates deep": lambda: edited(put("estimates", "notes", value=json.loads("[" * 60 + "]" * 60))),
    "recalibration": lambda: edited(put("recalibration", value={"north": [1.0]})),
    "network without tensors": lambda: edited(lambda c: c.update(network=c.pop("equation"))),
    "first form, more": lambda: json.dumps({**FIRST, "more": 1}),
    "first form, terms": lambda: json.dumps({**FIRST, "equation": {"intercept": 0.0, "terms": [1]}}),
    "first form, no term": lambda: json.dumps({**FIRST, "equation": {"intercept": 0.0, "terms": []}}),
    "first form, infinite": lambda: json.dumps(FIRST).replace("-2.0", "-1e999", 1),
    "first form, columns": lambda: json.dumps({**FIRST, "columns": []}),
    "first form, levels": lambda: json.dumps({**FIRST, "levels": ["no", "yes", "maybe"]}),
}


def _reversed(content: Content) -> None:
    content["equation"]["effects"][2]["at"].reverse()


def _line_factor(content: Content) -> None:
    line = {"column": "weight", "coefficient": 1.0, "low": 0.0, "high": 1.0, "unknown": None}
    content["equation"]["products"][0]["one"] = line


def test_a_file_that_is_sealed_again_is_read(tmp_path):
    """So that the next test does not pass for the seal alone."""
    (tmp_path / "model.json").write_text(edited(lambda content: None))
    assert ahh.load_model(tmp_path / "model.json").receipt_["study"] == "models"


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_hostile_file_is_refused(fault, tmp_path):
    (tmp_path / "broken.json").write_text(HOSTILE[fault]())
    with pytest.raises(ahh.Breach, match=r"broken\.json"):
        ahh.load_model(tmp_path / "broken.json")


def test_an_edit_is_named_as_such(tmp_path):
    (tmp_path / "broken.json").write_text(HOSTILE["edited"]())
    with pytest.raises(ahh.Breach, match="was changed after it was written"):
        ahh.load_model(tmp_path / "broken.json")


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path):
    with (tmp_path / "broken.json").open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(ahh.Breach, match="larger than 16 MiB"):
        ahh.load_model(tmp_path / "broken.json")


def with_tensors(tmp_path: Path, tensors: dict[str, np.ndarray] | bytes, **network: Any) -> Path:
    """A network's file, with other tensors, sealed all the same."""
    from safetensors.numpy import save

    write_model(modelling.network("levels"), tmp_path / "model.json")
    data = tensors if isinstance(tensors, bytes) else save(tensors)
    (tmp_path / "model.safetensors").write_bytes(data)
    content = json.loads((tmp_path / "model.json").read_text())
    content["tensors"] = hashlib.sha256(data).hexdigest()
    content["network"].update(network)
    (tmp_path / "model.json").write_text(sealed(content))
    return tmp_path / "model.json"


def numbers() -> dict[str, np.ndarray]:
    from ahh_federated.lab.models.form_files import tensors

    form = modelling.network("levels").form
    assert isinstance(form, Network)
    return dict(tensors(form))


def test_tensors_that_fit_are_read(tmp_path):
    assert said(read_model(with_tensors(tmp_path, numbers()))).shape == (300, 3)


@pytest.mark.parametrize(
    ("tensors", "network"),
    [
        (lambda: {**numbers(), "direct.weights": np.zeros((3, 7))}, {}),
        (lambda: {**numbers(), "layer0.bias": np.full(6, np.nan)}, {}),
        (lambda: {**numbers(), "layer0.bias": np.full(6, np.inf)}, {}),
        (lambda: {**numbers(), "layer0.bias": np.zeros(7)}, {}),
        (lambda: {**numbers(), "layer0.weights": np.zeros((6, 4))}, {}),
        (lambda: {**numbers(), "layer0.bias": np.zeros(6, dtype=np.float32)}, {}),
        (lambda: {**numbers(), "more": np.zeros(1)}, {}),
        (lambda: {name: each for name, each in numbers().items() if name != "layer1.bias"}, {}),
        (lambda: b"\x80\x04K\x01.", {}),
        (lambda: b"\xff" * 64, {}),
        (lambda: b"", {}),
        (numbers, {"widths": [7, 6, 5, 2]}),
        (numbers, {"widths": [7, 6, 3]}),
        (numbers, {"widths": [7, 10**9, 3]}),
        (numbers, {"widths": [7]}),
        (numbers, {"widths": "7"}),
        (numbers, {"widths": [7, True, 5, 3]}),
        (numbers, {"direct": False}),
        (numbers, {"direct": 1}),
        (numbers, {"activation": "os.system"}),
        (numbers, {"inputs": []}),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tensors, network, tmp_path):
    with pytest.raises(ahh.Breach, match=r"model\.json"):
        read_model(with_tensors(tmp_path, tensors(), **network))


def test_tensors_that_were_changed_or_are_gone_are_noticed(tmp_path):
    write_model(modelling.network("binary"), tmp_path / "model.json")
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(ahh.Breach, match=r"model\.safetensors is not the file"):
        read_model(tmp_path / "model.json")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ahh.AhhError, match=r"model\.safetensors cannot be read"):
        read_model(tmp_path / "model.json")


def test_what_is_not_installed_is_named_with_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ahh.Misuse, match=r"ahh-federated\[onnx\]"):
        modelling.results().model("plain").to_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["net.safetensors", "net.1", "net"])
def test_a_network_is_not_written_where_its_tensors_would_be_lost(name, tmp_path):
    """net.1 and net.2 would share net.safetensors."""
    with pytest.raises(ahh.Misuse, match=r"does not end in \.json"):
        write_model(modelling.network("binary"), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_an_integer_beyond_every_float_is_refused(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(edited(lambda c: c["equation"].update(intercept=10**400)), encoding="utf-8")
    with pytest.raises(ahh.Breach):
        read_model(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    model = modelling.results().model("plain")
    with pytest.raises(ahh.Misuse, match="cannot be written"):
        model.save(tmp_path / "absent" / "model.json")


def run_onnx(path: Path, model: Any) -> np.ndarray:
    """What ONNX Runtime says of the other patients."""
    runtime = pytest.importorskip("onnxruntime")
    frame, feed = modelling.clean(model, OTHERS), {}
    for name, column in model.features.items():
        texts = hasattr(column, "levels")
        raw = frame[name].fillna("nobody declared this").astype(object) if texts else pd.to_numeric(OTHERS[name], errors="coerce")
        feed[name] = raw.to_numpy(object if texts else np.float64)[:, None]
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


@pytest.mark.parametrize("ask", ASKS)
def test_onnx_predicts_the_same(ask, tmp_path):
    pytest.importorskip("onnx")
    model = modelling.results().model(ask)
    model.to_onnx(tmp_path / "model.onnx")
    expected = said(model.model_).reshape(len(OTHERS), -1)
    found = run_onnx(tmp_path / "model.onnx", model.model_)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert np.nanmax(np.abs(found - expected)) < 1e-5


@pytest.mark.parametrize("family", OUTCOMES)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_onnx_of_a_network_predicts_the_same(family, activation, tmp_path):
    pytest.importorskip("onnx")
    from ahh_federated.lab.models.export import write_onnx

    model = modelling.network(family, activation)
    write_onnx(model, tmp_path / "model.onnx")
    expected = said(model).reshape(len(OTHERS), -1)
    found = run_onnx(tmp_path / "model.onnx", model)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)
