"""Tables of scores on another collection: from records with known answers, and from the committed records."""

import numpy as np
import pandas as pd
import pytest

from mammo_lib.analysis import external_scores as elsewhere
from mammo_lib.config import RunConfig
from mammo_lib.errors import InputError
from mammo_lib.files import write_json
from mammo_lib.runs import records
from mammo_lib.statistics import evaluate_calibration, evaluate_predictions, unpaired_difference


def predictions(split, n, shift=0.0, separation=2.0, seed=0, **columns):
    """Normal logits, the malignant ones ``separation`` higher, all ``shift`` higher; one breast a patient."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    logit = rng.normal(size=n) + separation * (label - 0.5) + shift
    names = [f"{split}{i}" for i in range(n)]
    frame = {"sample_id": names, "patient_id": names, "split": split, "label": label, "logit": logit}
    frame |= {"probability": 1 / (1 + np.exp(-logit)), "threshold": 0.5, "temperature": 1.0}
    return pd.DataFrame(frame | columns)


def write_record(home, name, baseline=None, network=None, **options):
    """Write a record as `mammo external` does: 60 breasts, every third without a mass."""
    n = 60
    third = np.arange(n) % 3
    kinds = {"lesion_type": np.where(third, "mass", "other"), "finding": np.where(third, "CIRC", "ARCH")}
    kinds |= {"tissue": np.array(list("FGD"))[third], "lesion_size": np.arange(n) / n}
    parts = [predictions("external", n, **options, **kinds)]
    parts += [predictions(split, 80, seed=1, lesion_size=0.1) for split in ("internal", "internal_masked")]
    run = records.Run(home / "external_mini_mias" / name)
    run.folder.mkdir(parents=True)
    config = RunConfig(experiment="external_mini_mias", baseline=baseline)
    write_json(run.folder / "config.json", config.model_dump(mode="json"))
    write_json(run.folder / "environment.json", {"data_set": "mini-MIAS", "network": network})
    frame = pd.concat(parts, ignore_index=True)
    scored = dict(iter(frame.groupby("split")))
    scored["external_masses"] = scored["external"][scored["external"]["lesion_type"] == "mass"]
    metrics = {name: evaluate_predictions(one) | evaluate_calibration(one) for name, one in scored.items()}
    run.finish(frame, metrics)
    return run


@pytest.fixture
def found(tmp_path, monkeypatch):
    monkeypatch.setattr(elsewhere, "COMMITTED", tmp_path)
    write_record(tmp_path, "one", shift=3.0)  # all probabilities too high, the order as at home
    write_record(tmp_path, "two", baseline="frozen_stages", separation=0.0)  # the order is lost
    return elsewhere.external_records()


def test_the_network_stands_first_and_is_needed(found, tmp_path):
    assert list(found) == ["network", "frozen stages"]
    with pytest.raises(InputError, match=r"external_cmmd: no record of a network; make it with `mammo external`"):
        elsewhere.external_records("cmmd")


def test_a_loss_is_shown_where_the_order_is_lost_and_nowhere_else(found):
    table = elsewhere.losses(found).set_index(["score", "breasts"])
    assert table.loc[("frozen stages", "all abnormal"), "difference_high"] < 0
    kept = table.loc[("network", "all abnormal")]
    assert kept["difference_low"] < 0 < kept["difference_high"]
    assert kept["difference"] == pytest.approx(kept["external"] - kept["internal"])


def test_probabilities_that_are_too_high_are_told(found):
    table = elsewhere.at_the_old_threshold(found).set_index(["score", "breasts"])
    assert table.loc[("network", "external"), "calibration_low"] > 0.2
    assert (
        table.loc[("network", "internal"), "calibration_low"]
        < 0
        < table.loc[("network", "internal"), "calibration_high"]
    )
    assert "100% of the malignant" in elsewhere.transfer_answer(found)
    assert "neither shown nor excluded" in elsewhere.transfer_answer(found)


def test_tissues_stand_from_fatty_to_dense(found):
    table = elsewhere.by_kind(elsewhere.scored(found["network"], "external"))
    assert table["level"].tolist() == ["", "F", "G", "D", "ARCH", "CIRC"]
    assert table["n"].tolist() == [60, 20, 20, 20, 20, 40]


def test_comparisons_are_paired_and_corrected_within_a_set(found):
    table = elsewhere.against_baselines(found)
    assert table["breasts"].tolist() == ["masses", "all abnormal"] and (table["p_holm"] == table["p"]).all()
    assert (table["difference_low"] > 0).all()


def test_thirds_of_lesion_size_hold_a_third_each():
    frame = predictions("out_of_fold", 90, fold=np.repeat([0, 1, 2], 30))
    sizes = pd.Series(np.random.default_rng(2).permutation(90), frame["sample_id"])
    table = elsewhere.by_lesion_size([frame], sizes)
    assert table["n"].tolist() == [90, 30, 30, 30] and table["malignant"].iloc[1:].sum() == 45
    with pytest.raises(InputError, match="lesion size: unknown for 1 of 90 breasts"):
        elsewhere.by_lesion_size([frame], sizes.iloc[1:])


def test_independent_variances_are_added():
    """Equal samples twice: the standard error of the difference is the root of two times that of one."""
    one, other = predictions("a", 400), predictions("b", 400, seed=5)
    (a, _), (b, _) = (
        unpaired_difference((x["label"], x["logit"]), (y["label"], y["logit"])) for x, y in ((one, other), (one, one))
    )
    assert b.value == 0 and (b.high - b.low) == pytest.approx(a.high - a.low, rel=0.1)


def test_intervals_of_independent_differences_hold_the_truth():
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        samples = [(np.arange(40) % 2, rng.normal(size=40) + np.arange(40) % 2) for _ in range(2)]
        difference, _ = unpaired_difference(*samples)
        held += difference.low <= 0 <= difference.high
    assert 0.91 <= held / 400 <= 0.99


def test_separated_classes_give_no_interval():
    difference, p = unpaired_difference(([0, 0, 1, 1], [1, 2, 3, 4]), ([0, 0, 1, 1], [1, 2, 3, 4]))
    assert difference.value == 0 and np.isnan([difference.low, difference.high, p]).all()


def test_what_the_committed_records_say_of_films_is_about_149_breasts():
    runs = [records.Run(path.parent) for path in sorted(records.COMMITTED.glob("dual_stream/*/metrics.json"))]
    films = elsewhere.by_film(runs)
    assert films["orientation"].value_counts().sum() == len(films) == 149
    assert abs((films["beside"] == "more").sum() - 149 / 2) <= 1
    change, _ = elsewhere.film_difference(films)
    assert change.n == 149 and change.low < change.value < change.high
