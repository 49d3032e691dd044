"""The study file: read, validated, bound to analyses, and digested."""

from ahh_federated.study.asks import Ask
from ahh_federated.study.study import LARGEST, Study, canonical, open_study, parse_study, read_canonical

__all__ = ["LARGEST", "Ask", "Study", "canonical", "open_study", "parse_study", "read_canonical"]
