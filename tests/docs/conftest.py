"""The workspace that the shown commands run in: what `make demo` leaves, with fewer children."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from ahh_federated.cli.main import main
from ahh_federated.lab.synthetic import write_partners
from tests.docs.pages import ROOT

CHILDREN = 8_000


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Several test processes, each with as many BLAS threads as there are cores, slow each other down."""
    with threadpool_limits(limits=1):
        yield


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: the examples, the partners' tables and the outputs of the demo's study."""
    place = tmp_path_factory.mktemp("demo")
    shutil.copytree(ROOT / "examples", place / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    out = place / "demo-output"
    write_partners(out / "partners", children=CHILDREN, seed=2026)
    study = place / "examples" / "child-overweight.toml"
    assert main(["run", str(study), "--partners", str(out / "partners"), "--out", str(out), "--engine", "flower"]) == 0
    return place


@pytest.fixture
def workspace(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """A copy of its own for each page."""

    def fresh() -> Path:
        place = tmp_path / "workspace"
        shutil.copytree(demo, place)
        monkeypatch.chdir(place)
        for variable in ("AHH_CONFIG", "AHH_COORDINATOR_HOME", "AHH_NODE_HOME"):
            monkeypatch.setenv(variable, str(tmp_path / variable))
        return place

    return fresh
