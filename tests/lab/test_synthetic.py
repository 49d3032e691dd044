"""The synthetic cohort: reproducible, close to its targets, no easier to predict than real children."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ahh_federated.lab.synthetic as synthetic
from ahh_federated.errors import Misuse
from ahh_federated.lab.synthetic import antwerp_children, write_partners
from ahh_federated.lab.synthetic import constants as c
from ahh_federated.lab.synthetic.checks import TARGETS, above, compare, markdown, pooled
from ahh_federated.lab.synthetic.files import partner_files
from ahh_federated.lab.synthetic.partners import PARTNERS
from ahh_federated.lab.synthetic.population import draw_population

ROOT = Path(__file__).parents[2]
BIRTH = ["sex", "birth_weight", "gestation", "mother_origin", "deprived", "maternal_bmi", "smoked"]
BIRTH += ["breastfed"]
ZONES = [name for name in PARTNERS if name.startswith("zone-")]

Files = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def files() -> Files:
    return antwerp_children()


@pytest.fixture(scope="module")
def everyone(files: Files) -> pd.DataFrame:
    return pooled(files)


@pytest.fixture(scope="module")
def other_seeds() -> list[pd.DataFrame]:
    return [pooled(antwerp_children(seed=seed)) for seed in range(4)]


@pytest.fixture(scope="module")
def study() -> dict[str, Any]:
    return tomllib.loads((ROOT / "examples" / "child-overweight.toml").read_text(encoding="utf-8"))


def auroc(table: pd.DataFrame, features: list[str]) -> float:
    """Of a pooled, non-private logistic regression on complete cases; no child is scored by its own fold."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    metrics = pytest.importorskip("sklearn.metrics")
    selection = pytest.importorskip("sklearn.model_selection")
    outcome = above(table, "bmi_6y", c.OVERWEIGHT_6Y)
    complete = table[features].notna().all(axis=1) & outcome.notna()
    design = pd.get_dummies(table.loc[complete, features], drop_first=True).astype(float)
    design = (design - design.mean()) / design.std()
    risk = selection.cross_val_predict(
        linear_model.LogisticRegression(C=1e6, max_iter=1000),
        design,
        outcome[complete],
        cv=selection.StratifiedKFold(5, shuffle=True, random_state=0),
        method="predict_proba",
    )
    return float(metrics.roc_auc_score(outcome[complete], risk[:, 1]))


def test_same_arguments_give_the_same_tables() -> None:
    first, again = antwerp_children(2_000, 7), antwerp_children(2_000, 7)
    assert list(first) == list(PARTNERS)
    for name in first:
        pd.testing.assert_frame_equal(first[name], again[name], check_exact=True)


def test_another_seed_gives_other_children() -> None:
    first, other = antwerp_children(2_000, 7), antwerp_children(2_000, 8)
    for name in first:
        assert not first[name].equals(other[name])


def test_drawing_leaves_the_global_generator_alone() -> None:
    np.random.seed(1)
    expected = np.random.random(3)
    np.random.seed(1)
    antwerp_children(1_000)
    assert np.array_equal(np.random.random(3), expected)


@pytest.mark.parametrize("name", [target.name for target in TARGETS])
def test_default_cohort_meets_target(files: Files, name: str) -> None:
    row = compare(files).set_index("name").loc[name]
    assert row["achieved"] == pytest.approx(row["target"], abs=row["tolerance"])


def test_targets_do_not_hang_on_one_seed(other_seeds: list[pd.DataFrame]) -> None:
    for target in TARGETS:
        mean = np.mean([target.measure(table) for table in other_seeds])
        assert mean == pytest.approx(target.value, abs=target.tolerance), target.name


def test_girls_are_more_often_overweight_at_two_than_boys(other_seeds: list[pd.DataFrame]) -> None:
    rate = [above(t, "bmi_2y", c.OVERWEIGHT_2Y).groupby(t["sex"]).mean() for t in other_seeds]
    assert np.mean([r[c.GIRL] - r[c.BOY] for r in rate]) > 0


def test_discrimination_is_as_published(everyone: pd.DataFrame) -> None:
    assert 0.63 <= auroc(everyone, BIRTH) <= 0.68
    assert 0.80 <= auroc(everyone, [*BIRTH, "bmi_2y"]) <= 0.83


def test_discrimination_does_not_hang_on_one_seed(other_seeds: list[pd.DataFrame]) -> None:
    assert 0.64 <= np.mean([auroc(t, BIRTH) for t in other_seeds]) <= 0.67
    assert 0.80 <= np.mean([auroc(t, [*BIRTH, "bmi_2y"]) for t in other_seeds]) <= 0.83


def test_nothing_but_growth_predicts_well(everyone: pd.DataFrame) -> None:
    """No column that a study might add by accident gives the outcome away."""
    rest = ["home_language", "mother_education", "neighbourhood_income", "recorded"]
    assert auroc(everyone, [*BIRTH, *rest, "weight_2y", "bmi_2y"]) <= 0.83
    assert auroc(everyone, ["recorded"]) == pytest.approx(0.5, abs=0.03)


def test_partners_are_of_unequal_size(files: Files) -> None:
    sizes = [table["child_id"].nunique() for table in files.values()]
    assert len(set(sizes)) == len(sizes)
    assert max(sizes) > 5 * min(sizes)


def test_case_mix_and_baseline_differ_between_partners(everyone: pd.DataFrame) -> None:
    by_partner = everyone.groupby("partner")
    deprived = by_partner["deprived"].apply(lambda column: (column.dropna() == "yes").mean())
    schooled = by_partner["mother_education"].apply(lambda column: (column.dropna() == "high").mean())
    preterm = by_partner["gestation"].apply(lambda weeks: (weeks.dropna() < 37).mean())
    overweight = above(everyone, "bmi_6y", c.OVERWEIGHT_6Y).groupby(everyone["partner"]).mean()
    assert deprived["zone-oost"] > 2.5 * deprived["university-birth-cohort"]
    assert schooled.idxmax() == "university-birth-cohort"
    assert min(preterm["hospital-zas"], preterm["hospital-helix"]) > 1.4 * preterm["city-school-health"]
    assert overweight["zone-oost"] > 1.5 * overweight["university-birth-cohort"]


def test_every_child_has_a_key_and_every_column_is_there(files: Files) -> None:
    for table in files.values():
        assert tuple(table.columns) == c.COLUMNS
        assert table["child_id"].notna().all()
        assert table["recorded"].notna().all()
        assert table["sex"].isin([c.GIRL, c.BOY]).all()


def test_every_child_asked_for_is_somewhere(files: Files) -> None:
    assert len(set().union(*(table["child_id"] for table in files.values()))) == 20_000


def test_a_declared_share_is_known_to_two_partners(files: Files) -> None:
    known_to = pd.concat([t["child_id"].drop_duplicates() for t in files.values()]).value_counts()
    assert known_to.max() == 2
    assert (known_to == 2).mean() == pytest.approx(0.03, abs=0.005)


def test_the_last_row_of_a_child_differs_from_the_first(files: Files) -> None:
    table = files["hospital-helix"]
    rows = table.groupby("child_id")["recorded"].transform("size")
    assert table["child_id"].nunique() < len(table)
    assert rows.max() == 2
    twice = table[(rows == 2) & table["bmi_6y"].between(*c.RANGES["bmi_6y"])].sort_values("recorded")
    visits = twice.groupby("child_id")["bmi_6y"]
    change = (visits.first() - visits.last())[visits.size() == 2]
    assert change.mean() == pytest.approx(0.8, abs=0.15)
    assert len(files["university-birth-cohort"]) == files["university-birth-cohort"]["child_id"].nunique()


def test_row_order_says_nothing_about_the_visit(files: Files) -> None:
    table = files["hospital-helix"]
    twice = table[table.duplicated("child_id", keep=False)]
    day = twice.groupby("child_id")["recorded"]
    assert (day.last() > day.first()).mean() == pytest.approx(0.5, abs=0.12)


def test_missingness_differs_by_partner(everyone: pd.DataFrame) -> None:
    gaps = everyone.isna().groupby(everyone["partner"]).mean()
    assert gaps.loc["city-school-health", "bmi_6y"] < 0.07
    assert (gaps.loc[ZONES, "bmi_6y"] > 0.45).all()
    assert gaps.loc["university-birth-cohort", "mother_education"] < 0.03 < gaps["mother_education"].median()
    assert (gaps.loc[["hospital-zas", "hospital-helix"], "deprived"] > 0.07).all()


def test_zones_weigh_selectively() -> None:
    """Against the truth, an obese child is likelier to have a BMI in a zone, and is not in school health."""
    school = [i for i, name in enumerate(PARTNERS) if name == "city-school-health"]
    zones = [i for i, name in enumerate(PARTNERS) if name in ZONES]
    draws = []
    for seed in range(6):
        truth = draw_population(40_000, np.random.Generator(np.random.PCG64(seed)))
        seen = pooled(partner_files(truth, seed)).set_index("child_id")["bmi_6y"].notna()
        seen = seen.loc[truth["child_id"]].set_axis(truth.index)
        obese = above(truth, "bmi_6y", c.OBESITY_6Y) == 1
        shares = [seen[who & truth["home"].isin(home)].mean() for home in (zones, school) for who in (obese, ~obese)]
        log_odds = np.log(np.array(shares) / (1 - np.array(shares)))
        draws.append(log_odds[[0, 2]] - log_odds[[1, 3]])
    in_zones, in_school = np.mean(draws, axis=0)
    assert 1.2 < np.exp(in_zones) < 1.65
    assert in_school == pytest.approx(0.0, abs=0.4)


def test_the_birth_cohort_loses_deprived_families() -> None:
    truth = draw_population(60_000, np.random.Generator(np.random.PCG64(6)))
    name = "university-birth-cohort"
    own = truth[truth["home"] == list(PARTNERS).index(name)].set_index("child_id")
    table = partner_files(truth, 6)[name].set_index("child_id")["bmi_6y"].reindex(own.index)
    lost = table.isna().groupby(own["deprived"]).mean()
    assert lost["yes"] > 1.5 * lost["no"]


def test_faults_are_there_and_ranges_catch_them(files: Files, everyone: pd.DataFrame) -> None:
    assert (files["hospital-zas"]["birth_weight"] == 999).mean() == pytest.approx(0.04, abs=0.015)
    assert (files["hospital-helix"]["birth_weight"] > 400).mean() == pytest.approx(0.015, abs=0.01)
    assert (files["zone-oost"]["maternal_bmi"] == 0).mean() == pytest.approx(0.06, abs=0.02)
    assert (files["zone-noord"]["gestation"] > 100).any()
    assert (files["zone-centrum"]["bmi_6y"] > 100).any()
    for column, (low, high) in c.RANGES.items():
        assert everyone[column].dropna().between(low, high).all()
    truth = draw_population(20_000, np.random.Generator(np.random.PCG64(3)))
    for column, (low, high) in c.RANGES.items():
        assert truth[column].between(low, high).mean() > 0.999, column


def test_too_few_children_are_refused() -> None:
    with pytest.raises(Misuse, match="children = 30"):
        antwerp_children(30)


@pytest.mark.parametrize("parquet", [False, True])
def test_files_read_back_as_written(tmp_path: Path, parquet: bool) -> None:
    if parquet:
        pytest.importorskip("pyarrow")
    paths = write_partners(tmp_path / "new" / "folder", children=800, seed=3, parquet=parquet)
    for name, table in antwerp_children(800, 3).items():
        read = pd.read_parquet(paths[name]) if parquet else pd.read_csv(paths[name])
        pd.testing.assert_frame_equal(read, table, check_dtype=False)


def test_same_bytes_for_the_same_seed(tmp_path: Path) -> None:
    first = write_partners(tmp_path / "a", children=500, seed=3)
    again = write_partners(tmp_path / "b", children=500, seed=3)
    assert [path.read_bytes() for path in first.values()] == [path.read_bytes() for path in again.values()]


def test_documentation_prints_what_is_achieved(files: Files) -> None:
    comparison = compare(files)
    page = (ROOT / "docs" / "synthetic-cohort.md").read_text(encoding="utf-8")
    assert markdown(comparison) in page
    for row in comparison.itertuples():
        digits = 1 if "%" in row.name else 2
        line = f"    {row.name:<50}{row.target:>6.{digits}f}{row.achieved:>10.{digits}f}"
        assert line in (synthetic.__doc__ or ""), row.name


def test_example_study_fits_the_tables(files: Files, study: dict[str, Any]) -> None:
    asked = study["columns"]
    table = pd.concat(files.values())
    for name, column in asked.items():
        if "levels" in column:
            assert set(table[name].dropna()) == set(column["levels"]), name
        else:
            assert tuple(column["range"]) == c.RANGES[name], name
            assert column["unit"], name
    assert study["patient"]["key"] in table
    assert study["patient"]["order"] in table
    assert asked["birth_weight"]["missing"] == [999]


def test_example_study_names_only_what_it_declares(study: dict[str, Any]) -> None:
    names = set(study["columns"]) | set(study["cases"])
    for ask in study["ask"]:
        used = {*ask.get("by", []), *ask.get("columns", []), *ask.get("features", [])}
        used |= {ask[key] for key in ("column", "outcome") if key in ask}
        assert used <= names, ask["id"]
    assert sum(ask["share"] for ask in study["ask"]) <= 1
    assert len({ask["id"] for ask in study["ask"]}) == len(study["ask"])


def test_example_study_uses_the_published_cut_offs(study: dict[str, Any]) -> None:
    for age, (girl, boy) in {"2y": c.OVERWEIGHT_2Y, "6y": c.OVERWEIGHT_6Y}.items():
        when = study["cases"][f"overweight_{age}"]["when"]
        assert f"sex == 'girl' and bmi_{age} >= {girl}" in when
        assert f"sex == 'boy' and bmi_{age} >= {boy}" in when
