"""The first message of every model: who is used, and the moments of the features (analyses/glm.py), stacked.

A model's budget is shared as if the two were asked one after the other, COMPLETE of it and MOMENTS.
"""

from __future__ import annotations

from typing import Final

from ahh_federated.analyses.design import Design
from ahh_federated.analyses.glm import Complete, FeatureMoments
from ahh_federated.core.columns import Column
from ahh_federated.core.programs import Line, together
from ahh_federated.core.queries import Stack, joined

COMPLETE, MOMENTS = 0.02, 0.08  # shares
KIND: Final = joined(Complete.kind, FeatureMoments.kind)
_MULTIPLIERS = (1, 2)  # as the roots of the shares


def opening(design: Design, outcome: Column) -> Stack:
    return Stack((Complete(design, outcome), FeatureMoments(design, outcome)), _MULTIPLIERS)


def opening_line(design: Design, outcome: Column) -> Line:
    complete, moments = Complete(design, outcome), FeatureMoments(design, outcome)
    lines = [Line(complete.kind, complete.width, COMPLETE), Line(moments.kind, moments.width, MOMENTS)]
    return together(lines, _MULTIPLIERS)
