"""What an import brings in, and the walls between the layers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source import ROOT

HEAVY = ["torch", "opacus", "flwr", "pandas", "pyarrow", "sklearn", "scipy", "numpy", "matplotlib", "jinja2", "rich"]
ENGINES = ["torch", "opacus", "flwr"]


def loaded(code: str, names: list[str]) -> list[str]:
    """Which of the modules are loaded after the code has run in a process of its own."""
    ending = f"\nimport sys, json; print(json.dumps([name for name in {names!r} if name in sys.modules]))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", code + ending], capture_output=True, text=True, env=environment, check=True)
    found: list[str] = json.loads(ended.stdout.splitlines()[-1])
    return found


def test_the_import_alone_brings_nothing_heavy() -> None:
    assert loaded("import ahh_federated; dir(ahh_federated); ahh_federated.__version__", HEAVY) == []


def test_a_quote_needs_neither_torch_nor_flower() -> None:
    study = ROOT / "examples" / "child-overweight.toml"
    code = f"import ahh_federated as ahh; ahh.quote(ahh.open_study({str(study)!r}), [100])"
    assert loaded(code, [*ENGINES, "numpy"]) == ["numpy"]


def test_a_study_needs_no_pandas_and_no_scikit_learn() -> None:
    study = ROOT / "examples" / "child-overweight.toml"
    names = [*ENGINES, "pandas", "sklearn", "matplotlib", "numpy"]
    assert loaded(f"import ahh_federated as ahh; ahh.open_study({str(study)!r})", names) == ["numpy"]


def test_an_unknown_word_is_an_attribute_error_that_names_the_known_ones() -> None:
    import ahh_federated

    absent = "no_such_word"
    with pytest.raises(AttributeError, match="open_study"):
        getattr(ahh_federated, absent)


def test_the_walls_between_the_layers_hold(tmp_path: Path) -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed")
    command = [str(linter), "--no-logo", "--cache-dir", str(tmp_path), "--config", str(ROOT / "pyproject.toml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert ended.returncode == 0, ended.stdout
    assert "0 broken" in ended.stdout
