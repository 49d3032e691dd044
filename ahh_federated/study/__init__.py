"""The study file: read, validated, bound to analyses, and digested."""

from ahh_federated.study.asks import Ask
from ahh_federated.study.study import Study, canonical, open_study, parse_study

__all__ = ["Ask", "Study", "canonical", "open_study", "parse_study"]
