"""Every number the synthetic children are made from, with its source.

Marks: **published** (the source is named), **assumed** (chosen here to be plausible; no source), **solved**
(found by running the generator until a published target was met).  No number was estimated from any real
child's record.

Sources
-------
[Cole2000]  Cole, Bellizzi, Flegal, Dietz, BMJ 2000;320:1240: cut-offs at 2 and 6 years.
[Cole2012]  Cole, Lobstein, Pediatric Obesity 2012;7:284: LMS curves of the same reference.
[WHO2006]   WHO Child Growth Standards, length/height for age, 24 months.
[KG2018]    Kind en Gezin, Het kind in Vlaanderen, figures on births of 2016-2017.
[OG]        Opgroeien, yearly figures 2020-2022 (BMI at 2 years, feeding, language, deprivation index).
[SPE2022]   Studiecentrum voor Perinatale Epidemiologie, births in Flanders in 2022.
[Roelants]  Roelants, Hauspie, Hoppenbrouwers, Ann Hum Biol 2009;36:680: Flemish growth, median birth weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

GIRL: Final = "girl"
BOY: Final = "boy"

# BMI in kg/m2 at exactly 2.0 and 6.0 years, (girls, boys).  Published [Cole2000].
OVERWEIGHT_2Y: Final = (18.02, 18.41)
OBESITY_2Y: Final = (19.81, 20.09)
OVERWEIGHT_6Y: Final = (17.34, 17.55)
OBESITY_6Y: Final = (19.65, 19.78)

# (L, M in kg/m2, S) of BMI at 24 and 72 months, (girls, boys).  Published [Cole2012].
LMS_2Y: Final = ((-0.816, 16.206, 0.08447), (-0.624, 16.482, 0.07950))
LMS_6Y: Final = ((-1.461, 15.148, 0.09820), (-1.517, 15.336, 0.09195))

# Mean in cm and coefficient of variation of height at 24 months, (girls, boys).  Published [WHO2006].
HEIGHT_2Y: Final = ((85.73, 0.0376), (87.13, 0.0351))

# Median birth weight in kg at term, (girls, boys): published 3.3 and 3.5 [Roelants], raised by 0.08 (solved)
# because preterm births pull the median of all births down.  Spread 0.45 kg in all is assumed.
BIRTH_WEIGHT: Final = (3.38, 3.58)
BIRTH_WEIGHT_LOG_SD: Final = 0.115

BOYS_SHARE: Final = 0.512  # 105 boys to 100 girls, the usual sex ratio at birth

# Chance of each statement, given (mother Belgian at birth, mother not).  Deprivation: 26 % of births in the
# city (assumed, above the province's 17.5 % [OG]) of which 75 % with a mother not Belgian at birth [OG].
# Language: 55-60 % of newborns in the city not spoken to in Dutch (assumed; Flanders 30.7 % [OG]).
DEPRIVED: Final = (0.143, 0.355)
OTHER_LANGUAGE: Final = (0.19, 0.90)

SMOKED: Final = (0.04, 0.157)  # given (not deprived, deprived): 6-7 % in all; assumed
BREASTFED_LOGIT: Final = 1.07  # solved: 77 % on day 6 [OG]

# Log of the mother's BMI before pregnancy: solved for 26.4 % from 25 to 30 and 15.7 % above 30 kg/m2
# [SPE2022].
MATERNAL_BMI_LOG: Final = (3.1739, 0.2258)

# What each statement adds to the child's BMI z-score, at 2 and at 6 years alike.  Solved: origin and
# deprivation for the crude odds ratios 1.75 [KG2018] and 1.8 (assumed), which share a part; the mother's BMI,
# per kg/m2, for an AUROC near 0.65 without growth data (an obese mother adds about 0.36).  The others are
# assumed.
EFFECT_NON_BELGIAN: Final = 0.22
EFFECT_DEPRIVED: Final = 0.21
EFFECT_MATERNAL_BMI: Final = 0.032
EFFECT_BIRTH_WEIGHT_Z: Final = 0.15
EFFECT_SMOKED: Final = 0.15
EFFECT_BREASTFED: Final = -0.05

# BMI z-score, (girls, boys): mean and total SD.  Solved for the prevalences at both ages.
MEAN_Z_2Y: Final = (-0.104, -0.066)
MEAN_Z_6Y: Final = (0.114, 0.042)
SD_Z_2Y: Final = (1.086, 1.136)
SD_Z_6Y: Final = (1.070, 1.155)
# Correlation of what the statements above do not explain.  Solved for an AUROC of .80-.83 with the BMI at 2
# years; with what they do explain, the BMI z-scores at 2 and 6 years then correlate 0.59.
RESIDUAL_CORRELATION: Final = 0.545

# The values a partner may believe, in the unit of the column; the example study declares the same.
RANGES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "birth_weight": (0.5, 5.5),
        "gestation": (24, 43),
        "maternal_bmi": (14, 60),
        "neighbourhood_income": (5, 80),
        "weight_2y": (6, 25),
        "bmi_2y": (10, 28),
        "bmi_6y": (10, 35),
    }
)

COLUMNS: Final = (
    "child_id",
    "recorded",
    "sex",
    "birth_weight",
    "gestation",
    "mother_origin",
    "home_language",
    "mother_education",
    "deprived",
    "neighbourhood_income",
    "maternal_bmi",
    "smoked",
    "breastfed",
    "weight_2y",
    "bmi_2y",
    "bmi_6y",
)
