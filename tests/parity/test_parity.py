"""One study, three ways to run it: local, Flower and replay give the same bits for the same entropy."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

import ahh_federated as ahh
from ahh_federated.coordinator.transcript import read_transcript
from ahh_federated.lab.synthetic import antwerp_children

STUDY = Path(__file__).parents[2] / "examples" / "child-overweight.toml"
SEED = 11


@pytest.fixture(scope="module")
def frames():
    return antwerp_children(children=4_000, seed=3)


@pytest.fixture(scope="module")
def runs(frames, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    return {
        engine: (ahh.run(STUDY, frames, out=folder / engine, engine=engine, seed=SEED), folder / engine)
        for engine in ("local", "flower")
    }


def releases(folder: Path) -> list[tuple]:
    _, exchanges, _ = read_transcript(folder / "transcript.jsonl")
    return [
        (each.request.to_bytes(), sorted((name, reply.to_bytes()) for name, reply in each.replies.items())) for each in exchanges
    ]


def test_local_and_flower_release_the_same_bytes(runs):
    local, flower = (releases(runs[engine][1]) for engine in ("local", "flower"))
    assert len(local) == 11  # seven single steps and the model's four
    assert local == flower


def test_local_and_flower_give_the_same_results(runs):
    assert runs["local"][0].data == runs["flower"][0].data


def test_replay_recomputes_every_number(runs):
    results, folder = runs["flower"]
    assert ahh.replay(folder).data == results.data
    assert json.loads((folder / "results.json").read_text()) == results.data


def test_another_seed_gives_other_releases(frames, runs, tmp_path):
    ahh.run(STUDY, frames, out=tmp_path, seed=SEED + 1)
    first, other = releases(runs["local"][1])[0], releases(tmp_path)[0]
    assert first[1] != other[1]


def test_without_a_seed_no_two_runs_are_alike(frames, tmp_path):
    for name in ("a", "b"):
        ahh.run(STUDY, frames, out=tmp_path / name)
    first, second = releases(tmp_path / "a")[0], releases(tmp_path / "b")[0]
    assert first[0] == second[0]
    assert all(one != other for one, other in zip(first[1], second[1], strict=True))


def test_a_changed_release_changes_the_replay(runs, tmp_path):
    results, folder = runs["local"]
    lines = (folder / "transcript.jsonl").read_text().splitlines()
    step = json.loads(lines[1])
    reply = step["replies"]["zone-zuid"]
    cells = bytearray(base64.b64decode(reply["cells"]))
    cells[3] ^= 1
    reply["cells"] = base64.b64encode(bytes(cells)).decode()
    lines[1] = json.dumps(step, sort_keys=True, separators=(",", ":"))
    (tmp_path / "transcript.jsonl").write_text("\n".join(lines) + "\n")
    assert ahh.replay(tmp_path).data != results.data


def test_a_replay_of_a_changed_transcript_is_refused(runs, tmp_path):
    lines = (runs["local"][1] / "transcript.jsonl").read_text().splitlines(keepends=True)
    score = next(i for i, line in enumerate(lines) if '"glm.score/2"' in line)
    del lines[score]
    (tmp_path / "transcript.jsonl").write_text("".join(lines))
    with pytest.raises(ahh.Breach, match="step 2 of 'model'"):
        ahh.replay(tmp_path)
