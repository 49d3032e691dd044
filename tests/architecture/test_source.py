"""Rules that every file of the package keeps."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.source import PACKAGE, called, dotted, files, imported, place, tree

every_file = pytest.mark.parametrize("path", files(), ids=place)

MOST_LINES = 400
MOST_FUNCTION_LINES = 40
CODE_RUNNERS = {"eval", "exec", "compile", "__import__"}
UNPICKLERS = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
UNPICKLING = ("torch.load", "torch.save", "pd.read_pickle", "pandas.read_pickle", "np.load", "numpy.load", "np.fromregex")
GENERATORS = ("np.random", "numpy.random", "random", "torch.normal", "torch.rand", "torch.randn", "torch.manual_seed")
LABORATORY = PACKAGE / "lab"  # simulated patients for quotes and the synthetic cohort, never a release


def within(names: set[str], roots: tuple[str, ...]) -> set[str]:
    return {found for found in names if any(found == root or found.startswith(f"{root}.") for root in roots)}


def offences(path: Path) -> list[str]:
    """What a file uses that no file may use."""
    names = set(imported(path))
    runners = {f"{name}()" for name in set(called(path)) & CODE_RUNNERS}
    pickles = {name for name in names if name.split(".")[0] in UNPICKLERS}
    return sorted(runners | pickles | within(names | set(dotted(path)), UNPICKLING))


def generators(path: Path) -> list[str]:
    """Which generators of no cryptographic strength a file reads."""
    return sorted(within(set(imported(path)), GENERATORS) | within(set(dotted(path)), GENERATORS[:2] + GENERATORS[3:]))


@every_file
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its docstring apart."""
    first = function.body[0]
    told = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) and first.end_lineno else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - told


@every_file
def test_no_function_is_long(path: Path) -> None:
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [f"{each.name}: {length(each)} lines" for each in functions if length(each) > MOST_FUNCTION_LINES] == []


@every_file
def test_every_module_says_what_it_is(path: Path) -> None:
    module = tree(path)
    assert not module.body or ast.get_docstring(module), f"{place(path)} has no docstring"


@every_file
def test_nothing_runs_or_unpickles_what_it_is_sent(path: Path) -> None:
    assert offences(path) == []


@every_file
def test_no_weak_generator_outside_the_laboratory(path: Path) -> None:
    if not path.is_relative_to(LABORATORY):
        assert generators(path) == []


def test_the_kernel_reads_no_file_clock_or_environment() -> None:
    """What the import walls cannot see: builtins and modules that have other uses."""
    for path in files():
        if path.is_relative_to(PACKAGE / "core") or path.is_relative_to(PACKAGE / "analyses"):
            assert "open" not in set(called(path)), place(path)
            used = within(set(dotted(path)), ("os.environ", "os.getenv", "os.open", "time.time", "np.fromfile", "np.loadtxt"))
            assert used == set(), place(path)


PLANTED = {
    "import pickle": ["pickle"],
    "from joblib import load": ["joblib", "joblib.load"],
    "eval('1')": ["eval()"],
    "import torch\ntorch.load('x')": ["torch.load"],
    "import numpy as np\nnp.load('x', allow_pickle=True)": ["np.load"],
    "def f():\n    import dill": ["dill"],
}


@pytest.mark.parametrize("source", PLANTED)
def test_a_planted_offence_is_found(source: str, tmp_path: Path) -> None:
    path = tmp_path / "planted.py"
    path.write_text(source)
    assert offences(path) == PLANTED[source]


@pytest.mark.parametrize(
    "source", ["import random", "import numpy as np\nnp.random.default_rng(1)", "from numpy.random import Generator"]
)
def test_a_planted_generator_is_found(source: str, tmp_path: Path) -> None:
    path = tmp_path / "planted.py"
    path.write_text(source)
    assert generators(path) != []


def test_harmless_code_is_no_offence(tmp_path: Path) -> None:
    path = tmp_path / "harmless.py"
    path.write_text("import ast, re\nast.literal_eval('1')\nre.compile('a')\nself.random = 1\n")
    assert offences(path) == generators(path) == []
