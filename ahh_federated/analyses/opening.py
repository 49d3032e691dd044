"""The first message of a model: who is used, and the moments of the features (analyses/glm.py), stacked.

The budget is shared as if the two were asked one after the other, for COMPLETE and MOMENTS of it.
"""

from __future__ import annotations

from typing import Final

from ahh_federated.analyses.design import Design
from ahh_federated.analyses.glm import Complete, FeatureMoments
from ahh_federated.core.columns import Column
from ahh_federated.core.programs import Line
from ahh_federated.core.queries import Stack, joined

COMPLETE, MOMENTS = 0.02, 0.08  # shares
MULTIPLIERS = (1, 2)  # as the roots of the shares
KIND: Final = joined(Complete.kind, FeatureMoments.kind)


def opening(design: Design, outcome: Column) -> Stack:
    return Stack((Complete(design, outcome), FeatureMoments(design, outcome)), MULTIPLIERS)


def opening_line(design: Design, outcome: Column) -> Line:
    return Line.of(opening(design, outcome), COMPLETE + MOMENTS)
