"""Gradients need torch and Opacus; without them their tests are left out, and the header says so."""

from __future__ import annotations

from importlib.util import find_spec

ABSENT = [name for name in ("torch", "opacus") if find_spec(name) is None]
collect_ignore = ["test_gradients.py"] if ABSENT else []


def pytest_report_header() -> list[str]:
    return [f"gradients are not tested for want of {name}: install the extra `neural`" for name in ABSENT]
