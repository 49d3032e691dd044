"""From the children as they are to the tables the partners hold: gaps, second visits, slips of the pen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ahh_federated.errors import Misuse
from ahh_federated.lab.synthetic import constants as c
from ahh_federated.lab.synthetic.partners import KNOWN_TWICE, PARTNERS, USUAL_GAPS, Partner
from ahh_federated.lab.synthetic.population import draw_population

FEWEST_CHILDREN = 400


def antwerp_children(children: int = 20_000, seed: int = 2026) -> dict[str, pd.DataFrame]:
    """Draw `children` synthetic children and return each partner's table, keyed by the partner's name.

    Columns and units: `constants.COLUMNS`; a missing value is NaN (numbers) or None (words).  One row per
    child and partner, except that some partners keep an earlier row of some children, and that 3 % of the
    children are known to two partners under one `child_id`.  The same arguments give the same tables, to the
    last digit.

    Raises
    ------
    Misuse
        if `children` is too few for eight partners.
    """
    return partner_files(_population(children, seed), seed)


def _population(children: int, seed: int) -> pd.DataFrame:
    if children < FEWEST_CHILDREN:
        raise Misuse(f"children = {children}: eight unequal partners need at least {FEWEST_CHILDREN}; ask for more.")
    return draw_population(children, _stream(seed, 0))


def partner_files(population: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
    """What each partner wrote down about the children it knows."""
    home = population["home"].to_numpy()
    second = _second_partner(home, _stream(seed, 1))
    files = {}
    for index, (name, partner) in enumerate(PARTNERS.items()):
        rng = _stream(seed, 2 + index)
        own = population[home == index]
        shared = _weighed_again(population[second == index], rng)
        table = pd.concat([own, shared], ignore_index=True)[list(c.COLUMNS)]
        files[name] = _as_written(table, partner, rng)
    return files


def write_partners(folder: Path, *, children: int = 20_000, seed: int = 2026, parquet: bool = False) -> dict[str, Path]:
    """Write `antwerp_children(children, seed)`, one file per partner, and return the paths by partner name.

    CSV is UTF-8 with a comma, a header and an empty field for a missing value.  Existing files are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, table in antwerp_children(children, seed).items():
        path = folder / f"{name}{'.parquet' if parquet else '.csv'}"
        if parquet:
            table.to_parquet(path, index=False)
        else:
            table.to_csv(path, index=False, lineterminator="\n")
        paths[name] = path
    return paths


def _stream(seed: int, number: int) -> np.random.Generator:
    """An own stream per purpose, so that changing one partner leaves the others' draws as they were."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number])))


def _second_partner(home: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """The index of a child's second partner, or -1; never the child's own."""
    twice = rng.random(home.size) < KNOWN_TWICE
    other = (home + rng.integers(1, len(PARTNERS), home.size)) % len(PARTNERS)
    return np.where(twice, other, -1)


def _weighed_again(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Two partners seldom agree to the decimal: another scale, another day."""
    table = table.copy()
    table["recorded"] += rng.integers(-60, 61, len(table))
    table["bmi_6y"] = np.round(table["bmi_6y"] + rng.normal(0.0, 0.15, len(table)), 2)
    return table


def _as_written(table: pd.DataFrame, partner: Partner, rng: np.random.Generator) -> pd.DataFrame:
    table = _with_gaps(table, partner, rng)
    table = _with_earlier_rows(table, partner, rng)
    for slip in partner.slips:
        hit = rng.random(len(table)) < slip.share
        wrong = table[slip.column] * slip.factor if slip.code is None else slip.code
        table[slip.column] = table[slip.column].mask(hit, wrong)
    # Row order must carry nothing: not the visit, not which children are shared.
    return table.iloc[rng.permutation(len(table))].reset_index(drop=True)


def _with_gaps(table: pd.DataFrame, partner: Partner, rng: np.random.Generator) -> pd.DataFrame:
    """Blank values out, three of them not at random.

    Mothers who smoke answer less (odds of a gap x 2) and so do obese mothers about their weight (x 1.5); a
    child is weighed at 6 years with odds that depend on its own obesity and on deprivation, as the partner's
    profile says.
    """
    odds = {
        "smoked": np.where(table["smoked"] == "yes", 2.0, 1.0),
        "maternal_bmi": np.where(table["maternal_bmi"] >= 30, 1.5, 1.0),
        "bmi_6y": 1.0
        / np.where(_obese_6y(table), partner.obese_seen, 1.0)
        / np.where(table["deprived"] == "yes", partner.deprived_seen, 1.0),
    }
    gaps = dict(USUAL_GAPS) | dict(partner.gaps)
    written = table.copy()
    for column, share in gaps.items():
        against = share / (1.0 - share) * odds.get(column, np.ones(len(table)))
        gap = rng.random(len(table)) < against / (1.0 + against)
        written[column] = table[column].mask(gap, None if table[column].dtype.kind not in "iuf" else np.nan)
    return written


def _obese_6y(table: pd.DataFrame) -> npt.NDArray[np.bool_]:
    limit = np.where(table["sex"] == c.BOY, c.OBESITY_6Y[1], c.OBESITY_6Y[0])
    return np.asarray(table["bmi_6y"].to_numpy() >= limit)


def _with_earlier_rows(table: pd.DataFrame, partner: Partner, rng: np.random.Generator) -> pd.DataFrame:
    """Add the first try of a visit done again: weeks before, in clothes, so about 0.8 kg/m2 too high."""
    earlier = table[rng.random(len(table)) < partner.revisited].copy()
    earlier["recorded"] -= rng.integers(14, 181, len(earlier))
    earlier["bmi_6y"] = np.round(earlier["bmi_6y"] + rng.normal(0.8, 0.4, len(earlier)), 2)
    return pd.concat([table, earlier], ignore_index=True)
