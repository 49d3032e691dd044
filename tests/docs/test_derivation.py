"""docs/dp-newton.md against the code: the schedule, the bounds, and the formulas of the surrogate."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np

from ahh_federated.analyses import glm, opening, rounds
from ahh_federated.analyses.design import Design, Scale
from ahh_federated.analyses.logistic import Logistic
from ahh_federated.analyses.mixture import Mixture
from ahh_federated.analyses.newton import Moments, Surrogate
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.core.queries import Summed
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "dp-newton.md"
DESIGN = Design((Numeric("a", 0, 1, "u"), Numeric("b", 0, 1, "u"), Levels("c", ("x", "y", "z"))))
OUTCOME = Levels("y", ("no", "yes"))


def test_the_table_of_queries_is_the_schedule() -> None:
    rows = re.findall(r"^\| (\d) \| `([\w./]+)` \| .* \| ([^|]+) \| ([^|]+) \| ([\d.]+) \|$", PAGE.read_text(), re.MULTILINE)
    d, a, b, radius = DESIGN.width, 2, 1, 2.5
    widths = {"3": 3, "d + a": d + a, "d²": d * d, "2d + a": 2 * d + a, "d": d}
    bounds = {"1": 1.0, "√(1 + 2a + b)": math.sqrt(1 + 2 * a + b), "R²": radius**2, "1.044 R": 1.09**0.5 * radius, "R": radius}
    scale = Scale((0.0,) * (d - 1), (1.0,) * (d - 1), radius)
    shared = (DESIGN, OUTCOME, scale)
    beta = (0.0,) * d
    queries: list[Summed] = [
        *(glm.Complete(DESIGN, OUTCOME), glm.FeatureMoments(DESIGN, OUTCOME), glm.ClassSums(*shared)),
        *(glm.Gram(*shared), glm.Score(*shared, beta), glm.Score(*shared, beta)),
    ]
    messages = [[0, 1], [2, 3], [4], [5]]
    assert [int(row[0]) for row in rows] == [number for number, parts in enumerate(messages, 1) for _ in parts]
    for row, query in zip(rows, queries, strict=True):
        assert (row[1], widths[row[2].strip()]) == (query.kind, query.width)
        assert math.isclose(bounds[row[3].strip()], query.bound)
    for line, parts in zip(Logistic(DESIGN, OUTCOME).schedule(), messages, strict=True):
        assert line.kind == "+".join(queries[each].kind for each in parts)
        assert math.isclose(line.share, sum(float(rows[each][4]) for each in parts))


def test_the_multipliers_of_the_page_are_those_of_the_code() -> None:
    said = re.findall(r"\((\d+), (\d+)\) for", PAGE.read_text())
    assert [(int(m), int(n)) for m, n in said] == [opening.MULTIPLIERS, rounds.MULTIPLIERS]


def test_the_surrogates_gradient_and_hessian_by_the_pages_formulas() -> None:
    rng = np.random.default_rng(3)
    root = rng.normal(size=(3, 3))
    covariance = np.zeros((4, 4))
    covariance[1:, 1:] = root @ root.T / 3
    mean = np.array([1.0, *rng.normal(0, 0.3, 3)])
    moments = Moments(500.0, mean, covariance, np.outer(mean, mean) + covariance)
    phi, beta = Surrogate(moments, Mixture.normal(mean, covariance)), rng.normal(0, 0.7, 4)

    z, weight = np.polynomial.hermite_e.hermegauss(80)
    weight = weight / weight.sum()
    tau = math.sqrt(beta @ covariance @ beta)
    u = covariance @ beta / tau
    p = 1 / (1 + np.exp(-(mean @ beta + tau * z)))
    q = p * (1 - p)
    gradient = 500 * (weight @ p * mean + weight @ (p * z) * u)
    cross = np.outer(mean, u) + np.outer(u, mean)
    hessian = 500 * (
        weight @ q * np.outer(mean, mean)
        + weight @ (q * z) * cross
        + weight @ (q * z * z) * np.outer(u, u)
        + weight @ (p * z) / tau * (covariance - np.outer(u, u))
    )
    assert np.allclose(phi.gradient(beta), gradient, rtol=1e-5)
    assert np.allclose(phi.hessian(beta), hessian, rtol=1e-5)
    assert np.linalg.eigvalsh(phi.hessian(beta)).min() > 0
    steps = np.eye(4) * 1e-5
    assert np.allclose(gradient, [(phi.value(beta + h) - phi.value(beta - h)) / 2e-5 for h in steps], rtol=1e-4)


def test_the_shrinkage_that_the_proximal_term_leaves() -> None:
    """A fifth at kappa = 0.1 and a twentieth at 0.2, as section 8 says; nothing at 1/4."""
    left = {}
    for kappa in (0.1, 0.2, 0.25):
        rho = (math.sqrt(kappa) / 2 - kappa) / 2
        left[kappa] = rho / (kappa + rho)
    assert round(left[0.1], 1) == 0.2
    assert Fraction(left[0.2]).limit_denominator(20) < Fraction(1, 15)
    assert left[0.25] == 0
