"""Curves or straight lines: chosen by how many patients there are and how much noise they bring, never by a score.

    signal = n mu / sqrt(partners)

n: patients used, as released; mu: the whole privacy budget of the ask at each partner.  It is what the noise of a sum of
bound 1 over all partners, sqrt(partners) / mu, leaves of n.  Both are read off the first release: its standard error is
sqrt(partners) / (mu sqrt(share)).  The rule needs no further release and looks at no outcome.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ahh_federated.core.releases import Pooled

ENOUGH = 300.0


@dataclass(frozen=True, slots=True)
class Choice:
    """`signal` is infinite where there is no noise."""

    signal: float = math.inf

    @property
    def curves(self) -> bool:
        return self.signal >= ENOUGH

    @classmethod
    def of(cls, complete: Pooled, share: float) -> Choice:
        """From the pooled `glm.complete` release, which had this share of the budget."""
        if complete.stderr == 0:
            return cls()
        return cls(max(float(complete.values[:-1].sum()), 0.0) / (complete.stderr * math.sqrt(share)))

    def to_json(self) -> dict[str, Any]:
        signal = self.signal if math.isfinite(self.signal) else None
        return {"curves": self.curves, "signal": signal, "enough": ENOUGH}

    def explained(self) -> str:
        if not math.isfinite(self.signal):
            return "Curves: there is no noise to choose by."
        if self.curves:
            chosen = "Curves: with so many patients, this budget and these partners curves mostly predict better than lines"
        else:
            chosen = "Straight lines: for curves there are too few patients, or too little budget"
        return f"{chosen} (signal {self.signal:.0f}, curves from {ENOUGH:.0f}). The rule is public and saw no outcome."
