"""Model files: JSON, and beside it a file of tensors for a network.  Loading one runs nothing that is in it.

    model.json          family, columns, equation or network, estimates, receipt; its own SHA-256
    model.safetensors   a network's numbers; the JSON holds the SHA-256 of this file

Every number, shape, name and size is checked before anything is computed, and a key that is not known is refused.  The SHA-256
shows that a file was damaged or edited; whoever edits on purpose can write another, so it is no signature.
"""

from __future__ import annotations

import hashlib
import json
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from safetensors import numpy as safetensors

from ahh_federated.analyses.models import Family
from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.encoding import dump
from ahh_federated.errors import Breach, Misuse
from ahh_federated.lab.models import first_files
from ahh_federated.lab.models.fitted import RECEIPT, Fitted
from ahh_federated.lab.models.form_files import LARGEST as LARGEST_NUMBER
from ahh_federated.lab.models.form_files import network_json, read_network, read_sum, sum_json, tensors
from ahh_federated.lab.models.forms import F64, Form, Network
from ahh_federated.study.declarations import read_cases, read_columns
from ahh_federated.study.fields import Table

FORMAT = "ahh-model/2"
TENSORS = ".safetensors"
LARGEST = 16 << 20  # bytes of the JSON
LARGEST_TENSORS = 256 << 20  # bytes
_LONGEST = 20_000  # characters of a text
_DEEPEST = 30  # levels of nesting


def write_model(model: Fitted, path: Path) -> list[Path]:
    """Write a model; the files written.  Raises Misuse when that cannot be done."""
    if isinstance(model.form, Network) and path.suffix != ".json":
        raise Misuse(f"{path} does not end in .json: end it so, since a network's numbers go beside it as {TENSORS}")
    content = _content(model)
    written = [path]
    try:
        if isinstance(model.form, Network):
            numbers = safetensors.save(tensors(model.form))
            content["tensors"] = hashlib.sha256(numbers).hexdigest()
            written.append(path.with_suffix(TENSORS))
            written[-1].write_bytes(numbers)
        text = json.dumps({**content, "sha256": _digest(content)}, indent=1, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise Misuse(f"{path} cannot be written ({error.strerror}): give a path in a folder that is there") from None
    return written


def read_model(path: Path) -> Fitted:
    """Read a model that `write_model` wrote, or a file of the first form.

    Raises:
        Misuse: when a file cannot be read.
        Breach: when it is no such model, or was changed since.
    """
    content = _parsed(_bytes(path, LARGEST), path.name)
    try:
        if content.get("format") == first_files.FORMAT:
            return _read(first_files.upgraded(content, FORMAT, set(RECEIPT)), path)
        if content.get("format") != FORMAT:
            raise Misuse(f"it is not of the form {FORMAT}: give the model.json that a run or `save` wrote")
        sealed = {name: value for name, value in content.items() if name != "sha256"}
        if content.get("sha256") != _digest(sealed):
            raise Misuse(
                "it was changed after it was written, since its SHA-256 does not fit: get the file again from its source"
            )
        return _read(sealed, path)
    except Misuse as error:
        raise Breach(f"{path.name} is not a model that can be used: {error}") from None


def _content(model: Fitted) -> dict[str, Any]:
    form = model.form
    own = (
        {"network": network_json(form, model.features)}
        if isinstance(form, Network)
        else {"equation": sum_json(form, model.features)}
    )
    return {
        "format": FORMAT,
        "software": {"ahh_federated": model.software},
        "analysis": model.analysis,
        "family": model.family,
        "title": model.title,
        "outcome": {"name": model.outcome.name, "definition": model.definition, **declared(model.outcome)},
        "columns": {name: declared(column) for name, column in model.columns.items()},
        "cases": {name: {"when": case.when.text, "label": case.label} for name, case in model.cases.items()},
        **own,
        "estimates": dict(model.estimates),
        "recalibration": {name: list(both) for name, both in model.recalibration.items()},
        "receipt": dict(model.receipt),
    }


def declared(column: Column) -> dict[str, Any]:
    """A column as a study declares it."""
    if isinstance(column, Levels):
        return {"levels": list(column.levels), "missing": list(column.missing)}
    return {
        "range": [column.low, column.high],
        "unit": column.unit,
        "missing": list(column.missing),
        "outside": column.outside,
    }


def _read(content: Mapping[str, Any], path: Path) -> Fitted:
    table = Table(content, "")
    table.raw("format")
    software = table.table("software")
    analysis, family = table.name("analysis"), table.choice("family", get_args(Family))
    columns = read_columns(table.table("columns"))
    cases = read_cases(table.table("cases"), columns)
    outcome, definition = _outcome(table.table("outcome"))
    features: dict[str, Column] = {**columns, **{name: case.column for name, case in cases.items()}}
    _check_family(family, outcome)
    found = Fitted(
        analysis=analysis,
        family=family,
        title=table.text("title", default=""),
        outcome=outcome,
        definition=definition,
        columns=columns,
        cases=cases,
        form=_form(table, features, family, outcome, path),
        estimates=plain(table.raw("estimates"), "estimates"),
        receipt=_receipt(table.raw("receipt")),
        software=software.text("ahh_federated"),
        recalibration=_recalibration(table.table("recalibration")),
    )
    for each in (software, table):
        each.done()
    return found


def _outcome(table: Table) -> tuple[Column, str]:
    name, definition = table.name("name"), table.text("definition")
    declaration = {key: table.raw(key) for key in table.names() if key not in ("name", "definition")}
    return read_columns(Table({name: declaration}, "outcome"))[name], definition


def _check_family(family: Family, outcome: Column) -> None:
    fits = {
        "binary": isinstance(outcome, Levels) and len(outcome.levels) == 2,
        "levels": isinstance(outcome, Levels),
        "continuous": isinstance(outcome, Numeric),
        "count": isinstance(outcome, Numeric),
    }
    if not fits[family]:
        raise Misuse(f"family {family!r} does not fit the outcome {outcome.name!r}")


def _form(table: Table, features: Mapping[str, Column], family: Family, outcome: Column, path: Path) -> Form:
    if "network" not in table:
        if family == "levels":
            raise Misuse("an equation has one output, so its outcome cannot have several levels")
        return read_sum(table.table("equation"), features)
    digest = table.text("tensors")
    numbers = _bytes(path.with_suffix(TENSORS), LARGEST_TENSORS)
    if hashlib.sha256(numbers).hexdigest() != digest:
        raise Misuse(
            f"{path.with_suffix(TENSORS).name} is not the file that was written with it: get both again from their source"
        )
    outputs = len(outcome.levels) if family == "levels" and isinstance(outcome, Levels) else 1
    return read_network(table.table("network"), features, _loaded(numbers), outputs)


def _receipt(content: Any) -> dict[str, Any]:
    receipt: dict[str, Any] = plain(content, "receipt")
    if not isinstance(receipt, dict) or set(receipt) != RECEIPT:
        raise Misuse(f"receipt has not exactly the keys {', '.join(sorted(RECEIPT))}")
    return receipt


def _recalibration(table: Table) -> dict[str, tuple[float, float]]:
    found = {}
    for name in table.names():
        both = table.numbers(name)
        if len(both) != 2 or max(map(abs, both)) > LARGEST_NUMBER:
            raise Misuse(f"{table.at(name)} is not an intercept and a slope")
        found[name] = (both[0], both[1])
    return found


def plain(content: Any, where: str, depth: int = 0) -> Any:
    """The same data when it is tables, lists, finite numbers and texts that a screen can show.  Raises Misuse otherwise."""
    if isinstance(content, str) and len(content) <= _LONGEST and not any(map(_hidden, content)):
        return content
    if content is None or isinstance(content, bool) or (isinstance(content, int | float) and abs(content) <= sys.float_info.max):
        return content
    if isinstance(content, list) and depth < _DEEPEST:
        return [plain(each, where, depth + 1) for each in content]
    if isinstance(content, dict) and depth < _DEEPEST:
        return {plain(name, where): plain(each, where, depth + 1) for name, each in content.items()}
    raise Misuse(f"{where} holds what is neither a finite number nor a text that a screen can show")


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in "\n\t"


def _digest(content: Mapping[str, Any]) -> str:
    try:
        return hashlib.sha256(dump(content)).hexdigest()
    except (ValueError, RecursionError):
        raise Misuse("it holds what cannot be spelled in JSON") from None


def _parsed(data: bytes, name: str) -> dict[str, Any]:
    try:
        content = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise Breach(f"{name} is not JSON, or has a key twice: give the model.json that a run or `save` wrote") from None
    if not isinstance(content, dict):
        raise Breach(f"{name} is not a table, so it is no model")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)


def _bytes(path: Path, largest: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except OSError as error:
        raise Misuse(
            f"{path} cannot be read ({error.strerror}): give the path of a model.json, with what lies beside it"
        ) from None
    if len(data) > largest:
        raise Breach(f"{path.name} is larger than {largest >> 20} MiB, so it is no model")
    return data


def _loaded(data: bytes) -> dict[str, F64]:
    try:
        return dict(safetensors.load(data))
    except Exception:  # the library raises kinds of its own
        raise Misuse("the file of tensors is damaged") from None
