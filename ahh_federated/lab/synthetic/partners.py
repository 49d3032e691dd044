"""The eight partners: whom each knows, what it forgets to write down, and what it writes down wrongly.

Sizes, case mix and completeness are assumed, in the direction of the published descriptions: zones Centrum
and Oost are poorer and more often of foreign origin than Noord and Zuid, births at hospitals are more often
preterm, a birth cohort keeps better records of better educated families, school health sees nearly every
child, and primary care weighs selectively: an obese child has odds 1.45 times higher of a BMI on record
(general practice in London, against school measurements).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

# Share of children without the value where nothing else is said (assumed; child health registers 93-95 % of
# births).
USUAL_GAPS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "birth_weight": 0.02,
        "gestation": 0.03,
        "mother_origin": 0.02,
        "home_language": 0.04,
        "mother_education": 0.15,
        "deprived": 0.04,
        "neighbourhood_income": 0.01,
        "maternal_bmi": 0.10,
        "smoked": 0.05,
        "breastfed": 0.05,
        "weight_2y": 0.06,
        "bmi_2y": 0.10,
        "bmi_6y": 0.08,
    }
)


@dataclass(frozen=True, slots=True)
class Slip:
    """A systematic fault: in `share` of the rows `column` holds `code`, or the true value times `factor`."""

    column: str
    share: float
    code: float | None = None
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Partner:
    """One partner's case mix and record keeping.

    share: of all children.  non_belgian, preterm: chance.  deprivation, education: added to a logit and to a
    standard normal score.  income: median of the neighbourhood's income in 1000 EUR.  baseline: added to the
    BMI z-score at 6 years (half of it at 2), for reasons no column holds.  gaps: share without the value, by
    column. obese_seen, deprived_seen: odds ratio of having a BMI at 6 years.  revisited: share of children
    with an earlier row.
    """

    share: float
    non_belgian: float
    preterm: float = 0.0635
    deprivation: float = 0.0
    education: float = 0.0
    income: float = 20.0
    baseline: float = 0.0
    gaps: Mapping[str, float] = field(default_factory=dict)
    obese_seen: float = 1.0
    deprived_seen: float = 1.0
    revisited: float = 0.0
    slips: tuple[Slip, ...] = ()


def _zone(bmi_6y: float, **more: float) -> Mapping[str, float]:
    """Primary care: few social statements, few weights, and those not at random."""
    return MappingProxyType(
        {"mother_education": 0.40, "smoked": 0.08, "maternal_bmi": 0.18, "bmi_2y": 0.15, "weight_2y": 0.08}
        | {"bmi_6y": bmi_6y}
        | more
    )


PARTNERS: Final[Mapping[str, Partner]] = MappingProxyType(
    {
        "city-school-health": Partner(
            share=0.30,
            non_belgian=0.56,
            gaps=MappingProxyType({"bmi_6y": 0.04, "maternal_bmi": 0.14, "smoked": 0.09, "bmi_2y": 0.12}),
            revisited=0.04,
        ),
        "hospital-zas": Partner(
            share=0.16,
            non_belgian=0.56,
            preterm=0.11,
            baseline=0.04,
            gaps=MappingProxyType(
                {"birth_weight": 0.0, "gestation": 0.01, "maternal_bmi": 0.04, "deprived": 0.12}
                | {"home_language": 0.15, "mother_education": 0.30, "bmi_2y": 0.18, "bmi_6y": 0.35}
            ),
            obese_seen=1.45,
            revisited=0.06,
            slips=(Slip("birth_weight", 0.04, code=999),),
        ),
        "hospital-helix": Partner(
            share=0.12,
            non_belgian=0.48,
            preterm=0.13,
            education=0.15,
            income=21.0,
            gaps=MappingProxyType(
                {"birth_weight": 0.01, "gestation": 0.01, "maternal_bmi": 0.05, "deprived": 0.10}
                | {"home_language": 0.12, "mother_education": 0.25, "bmi_2y": 0.16, "bmi_6y": 0.32}
            ),
            obese_seen=1.45,
            revisited=0.10,
            slips=(Slip("birth_weight", 0.015, factor=1000),),
        ),
        "university-birth-cohort": Partner(
            share=0.05,
            non_belgian=0.25,
            deprivation=-1.2,
            education=0.9,
            income=23.5,
            baseline=-0.12,
            gaps=MappingProxyType(dict.fromkeys(USUAL_GAPS, 0.01) | {"bmi_2y": 0.03, "bmi_6y": 0.06}),
            deprived_seen=0.4,
        ),
        "zone-centrum": Partner(
            share=0.13,
            non_belgian=0.64,
            deprivation=0.30,
            education=-0.05,
            income=18.5,
            baseline=0.06,
            gaps=_zone(0.58),
            obese_seen=1.45,
            revisited=0.08,
            slips=(Slip("bmi_6y", 0.005, factor=10),),
        ),
        "zone-oost": Partner(
            share=0.10,
            non_belgian=0.62,
            deprivation=0.25,
            education=-0.20,
            income=18.0,
            baseline=0.14,
            gaps=_zone(0.62, gestation=0.08),
            obese_seen=1.45,
            revisited=0.08,
            slips=(Slip("maternal_bmi", 0.06, code=0),),
        ),
        "zone-noord": Partner(
            share=0.08,
            non_belgian=0.42,
            deprivation=-0.20,
            income=21.0,
            baseline=-0.04,
            gaps=_zone(0.55),
            obese_seen=1.45,
            revisited=0.05,
            slips=(Slip("gestation", 0.01, factor=7),),
        ),
        "zone-zuid": Partner(
            share=0.06,
            non_belgian=0.42,
            deprivation=-0.35,
            education=0.10,
            income=22.0,
            baseline=-0.10,
            gaps=_zone(0.50),
            obese_seen=1.45,
            revisited=0.05,
        ),
    }
)

# Share of children in the files of two partners, under one pseudonym (assumed).
KNOWN_TWICE: Final = 0.03
