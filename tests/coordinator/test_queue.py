"""The queue of studies: order, states, restarts, and what is no study."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ahh_federated.coordinator import queue as module
from ahh_federated.coordinator.queue import Queue, State, match
from ahh_federated.errors import Misuse
from ahh_federated.study import read_canonical
from tests.coordinator.coordinators import example, study


@pytest.fixture
def path(tmp_path):
    return tmp_path / "coordinator.db"


@pytest.fixture
def queue(path):
    with closing(Queue(path)) as queue:
        yield queue


def digests(found):
    return [each.digest for each in found]


def test_a_study_is_queued_under_the_digest_of_its_bytes(queue):
    content = example()
    queued = queue.submit(content, "an-peeters")
    assert queued.digest == hashlib.sha256(content).hexdigest()
    assert (queued.id, queued.by, queued.state, queued.reason) == ("child-overweight", "an-peeters", State.QUEUED, "")
    assert queued.content == content and queued.progress == {}
    assert queue.get(queued.digest) == queued == queue.find("child-overweight") == queue.find(queued.digest[:8])
    assert queue.get("0" * 64) is None


def test_the_same_study_again_changes_nothing(queue):
    first, other = queue.submit(study(1), "an-peeters"), queue.submit(study(2), "an-peeters")
    queue.set(first.digest, "running")
    assert queue.submit(study(1), "an-peeters").state is State.RUNNING
    assert digests(queue.studies()) == [first.digest, other.digest]


def test_another_researchers_study_is_not_taken_over(queue):
    queued = queue.submit(study(), "an-peeters")
    with pytest.raises(Misuse, match="another researcher"):
        queue.submit(study(), "tom-claes")
    assert queue.get(queued.digest) == queued


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_a_study_that_came_to_nothing_may_be_queued_afresh_at_the_end(queue, end):
    first, second = queue.submit(study(1), "an-peeters"), queue.submit(study(2), "an-peeters")
    queue.note(first.digest, {"step": 3})
    queue.set(first.digest, end, "for a reason")
    again = queue.submit(study(1), "an-peeters")
    assert (again.state, again.reason, again.progress) == (State.QUEUED, "", {})
    assert digests(queue.waiting()) == [second.digest, first.digest]


def test_order_and_states(queue):
    first, second, third = (queue.submit(study(k), "an-peeters") for k in (1, 2, 3))
    queue.set(first.digest, "running")
    queue.set(second.digest, "waiting", "2 of 8 have approved")
    assert digests(queue.waiting()) == queue.order() == [second.digest, third.digest]
    assert queue.waiting()[0].reason == "2 of 8 have approved"
    assert queue.waiting()[0].content == study(2)
    assert [each.content for each in queue.studies()] == [b"", b"", b""]


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
def test_what_is_over_stays_over(queue, end):
    digest = queue.submit(study(), "an-peeters").digest
    assert queue.set(digest, end)
    for state in State:
        assert not queue.set(digest, state, "later")
    assert not queue.cancel(digest)
    found = queue.get(digest)
    assert found is not None and (found.state, found.reason) == (end, "")


def test_what_is_not_there_is_not_changed(queue):
    assert not queue.set("0" * 64, "running") and not queue.cancel("0" * 64)
    queue.note("0" * 64, {"step": 1})
    assert queue.studies() == []
    with pytest.raises(ValueError):
        queue.set("0" * 64, "asleep")


def test_a_cancelled_study_is_not_started_by_a_service_that_was_late(queue):
    digest = queue.submit(study(), "an-peeters").digest
    assert queue.cancel(digest)
    assert not queue.set(digest, "running")
    assert queue.waiting() == []


def test_a_restart_queues_what_was_running_in_its_old_place(path, queue):
    first, second, third = (queue.submit(study(k), "an-peeters") for k in (1, 2, 3))
    queue.set(first.digest, "done")
    queue.set(second.digest, "running")
    queue.note(second.digest, {"ask": "model", "step": 2})
    with closing(Queue(path)) as again:
        assert digests(again.resume()) == [second.digest, third.digest]
        found = again.get(second.digest)
    assert found is not None and found.state is State.QUEUED and found.progress == {"ask": "model", "step": 2}
    assert queue.resume() == queue.waiting()


def test_names_that_fit_none_or_several(queue):
    queue.submit(study(1), "an-peeters")
    queue.submit(study(2), "an-peeters")
    with pytest.raises(Misuse, match="2 studies are called 'growth'"):
        queue.find("growth")
    for name in ("", "absent", queue.studies()[0].digest[:5]):
        with pytest.raises(Misuse, match="no study here"):
            queue.find(name)
    assert match(queue.studies(), queue.studies()[1].digest).digest == queue.studies()[1].digest


def test_an_expired_study_is_refused(queue):
    old = json.loads(study())
    old["study"]["expires"] = "2020-01-01"
    with pytest.raises(Misuse, match="expired on 2020-01-01"):
        queue.submit(json.dumps(old, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(), "an-peeters")


def test_a_researcher_cannot_flood_the_stewards(queue, monkeypatch):
    monkeypatch.setattr(module, "MOST_A_DAY", 3)
    for version in (1, 2, 3):
        queue.cancel(queue.submit(study(version), "an-peeters").digest)
    for version in (1, 4):
        with pytest.raises(Misuse, match="tomorrow"):
            queue.submit(study(version), "an-peeters")
    assert queue.submit(study(4), "tom-claes").by == "tom-claes"


def spelled(change):
    content = json.loads(study())
    change(content)
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"study"',
        b"\xff\xfe",
        b"[" * 100_000,
        b"1" * 5_000,
        b"NaN",
        b" " * (1 << 20) + b"{}",
        study() + b"\n",
        study().replace(b'"version":1', b'"version": 1'),
        study().replace(b'"version":1', b'"version":1,"version":1'),
        study().replace(b'"version":1', b'"version":1e400'),
        study().replace(b'"version":1', b'"version":true'),
        study().replace(b'"version":1', b'"version":1.0'),
        study().replace(b"2030-12-31", b"2030-12-32"),
        study().replace(b'"2030-12-31"', b"20301231"),
        study().replace(b"2030-12-31", b"20301231"),
        study().replace(b"growth", b"\\u0067rowth"),
        study().replace(b"Growth", b"\\ud800"),
        spelled(lambda content: content.pop("study")),
        spelled(lambda content: content.update(study=[])),
        spelled(lambda content: content.update(more=1)),
        spelled(lambda content: content["privacy"].update(epsilon=1e9)),
    ],
)
def test_what_is_no_study(queue, content):
    with pytest.raises(Misuse):
        queue.submit(content, "an-peeters")
    assert queue.studies() == []


def test_one_byte_makes_another_study_or_none():
    content, digest = study(), hashlib.sha256(study()).hexdigest()
    assert read_canonical(content).digest == digest
    for place in range(0, len(content), 7):
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        try:
            assert read_canonical(changed).digest == hashlib.sha256(changed).hexdigest() != digest
        except Misuse:
            pass


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_study_with_anything_in_it_is_a_misuse_or_a_study(data):
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    )
    content = json.loads(study())
    table = data.draw(st.sampled_from([content, *(each for each in content.values() if isinstance(each, dict))]))
    table[data.draw(st.sampled_from(sorted(table)))] = data.draw(anything)
    try:
        spelling = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")
        read_canonical(spelling)
    except Misuse:
        pass
