"""From records of cross-validation to answers."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mammo_lib import figures
from mammo_lib.analysis import answers
from mammo_lib.config import get_profile
from mammo_lib.runs import records
from mammo_lib.runs.experiments import experiment_configs, read_groups
from mammo_lib.statistics import EQUIVALENCE, evaluate_out_of_fold

PROFILE = get_profile("mirror-cv")
N = 400


def written(folder, name, seed, gain):
    """Write the record of one repeat: the same breasts and folds for every experiment, scores of a given quality."""
    config = next(c for c in experiment_configs(PROFILE.extended, name) if c.seed == seed)
    rng = np.random.default_rng(seed)
    label = np.tile([0, 1], N // 2)
    logit = gain * label + rng.normal(size=N)  # the same noise for every experiment of a seed
    frame = pd.DataFrame({
        "sample_id": [f"b{i:03d}" for i in range(N)], "patient_id": np.arange(N), "label": label, "logit": logit,
        "probability": 1 / (1 + np.exp(-logit)), "fold": rng.permutation(np.repeat(np.arange(5), N // 10)).repeat(2),
        "threshold": 0.5, "temperature": 1.0, "split": "out_of_fold",
    })  # fmt: skip
    run = records.Run(folder / name / f"seed{seed}-made")
    run.folder.mkdir(parents=True)
    records.write_json(run.folder / "config.json", config.model_dump(mode="json"))
    records.write_json(run.folder / "environment.json", {})
    off = frame.assign(intervention="shut", draw=0, logit=rng.normal(size=N))
    same = frame.assign(intervention="as_is", draw=0)
    pd.concat([same, off])[["split", "sample_id", "intervention", "draw", "logit", "fold"]].to_parquet(
        run.folder / "interventions.parquet"
    )
    losses = [0.692 if name == "crop_ssm" else 0.6] + 4 * [0.6]  # one fold of this network learned nothing
    history = pd.DataFrame({"epoch": 13, "train_loss": losses, "fold": range(5)})
    history.to_csv(run.folder / "history.csv", index=False)
    run.finish(frame, {"out_of_fold": evaluate_out_of_fold(frame)})
    return run


@pytest.fixture(scope="module")
def repeats(tmp_path_factory):
    """Records of a few variants, in both homes, written once for all tests: none changes them."""
    tmp_path = tmp_path_factory.mktemp("records")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "COMMITTED", tmp_path / "committed")
        patch.setattr(records, "FRESH", tmp_path / "fresh")
        yield made(tmp_path)


def made(tmp_path):
    for seed in (0, 1):
        written(tmp_path / "committed", "crop_plain", seed, 1.5)
        written(tmp_path / "fresh", "crop_ssm", seed, 1.5)
        written(tmp_path / "fresh", "crop_no_blocks", seed, 0.5)
    written(tmp_path / "fresh", "crop_attention", 0, 1.52)
    return answers.find_repeats(PROFILE)


def test_records_are_found_by_their_config_without_images(repeats):
    assert {name: [run.config.seed for run in runs] for name, runs in repeats.items()} == {
        "crop_plain": [0, 1], "crop_ssm": [0, 1], "crop_attention": [0], "crop_no_blocks": [0, 1],
    }  # fmt: skip


def test_what_is_missing_is_counted(repeats):
    table = answers.still_missing(PROFILE, repeats).set_index("question")["finished"]
    assert table["isolation"] == "7 of 12" and table["fusion"] == "0 of 8"


def test_each_variant_gets_the_protocols_word(repeats):
    table = answers.answers(PROFILE, "isolation", repeats).set_index("experiment")
    assert table["answer"].to_dict() == {
        "crop_ssm": "equivalent", "crop_attention": answers.BOTH, "crop_no_blocks": "different",
    }  # fmt: skip
    assert table.loc["crop_no_blocks", "difference"] < -0.1  # the variant minus the reference
    assert table.loc["crop_ssm", "reach"] == pytest.approx(0)
    assert table["repeats"].to_dict() == {"crop_ssm": 2, "crop_attention": 1, "crop_no_blocks": 2}
    said = answers.sentence(answers.answers(PROFILE, "isolation", repeats), "crop_plain")
    assert "no token blocks (`crop_no_blocks`): different, -0." in said
    assert "attention only (`crop_attention`) [1 of 2 repeats]: different, but by less than the bound, +0.0" in said
    assert "state-space mixers only (`crop_ssm`): equivalent (reach 0.000)" in said
    assert said.endswith(" Planned comparisons that have not been run: 2.")


def test_added_repeats_count_once_all_have_run_and_the_first_stage_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "COMMITTED", tmp_path / "committed")
    monkeypatch.setattr(records, "FRESH", tmp_path / "fresh")
    added = PROFILE.further_seeds
    assert not set(added) & set(PROFILE.seeds) and len(PROFILE.seeds) + len(added) == 5  # protocol 2: "up to five"
    for seed in (*PROFILE.seeds, *added[:-1]):
        written(tmp_path / "committed", "crop_plain", seed, 1.5)
        written(tmp_path / "committed", "crop_ssm", seed, 1.5)
    for seed in PROFILE.seeds:
        written(tmp_path / "committed", "crop_attention", seed, 1.5)
    said = answers.in_stages(PROFILE, "isolation", answers.find_repeats(PROFILE))
    assert "repeats" not in said  # one is missing: all that were added wait

    for name in ("crop_plain", "crop_ssm"):
        written(tmp_path / "committed", name, added[-1], 1.5)
    repeats = answers.find_repeats(PROFILE)
    table = answers.answers(PROFILE, "isolation", repeats).set_index("experiment")["repeats"]
    assert table.to_dict() == {"crop_ssm": 5, "crop_attention": 2}
    said, first = answers.in_stages(PROFILE, "isolation", repeats).split(" After the 2 planned repeats alone: ")
    assert "(`crop_ssm`) [5 repeats]: equivalent" in said and "(`crop_attention`): equivalent" in said
    assert first == (
        "`crop_ssm`: equivalent (reach 0.000). At 2.5 % instead of 5 %, to allow for two stages, 1 of 1 answers are "
        "the same."
    )
    assert answers.still_missing(PROFILE, repeats).set_index("question")["finished"]["isolation"] == "6 of 12"


def test_comparisons_that_have_not_been_run_count_in_holms_correction(repeats):
    """Three of five planned ones: the smallest p is multiplied by five, whenever the other two come."""
    from mammo_lib.statistics import compare_folds

    pair = [[run.predictions for run in repeats[name]] for name in ("crop_no_blocks", "crop_plain")]
    alone = compare_folds(*pair)
    table = answers.answers(PROFILE, "isolation", repeats).set_index("experiment")
    assert table.loc["crop_no_blocks", "p_difference"] == pytest.approx(5 * alone.p)


def test_the_conservative_interval_is_read_out():
    rows = pd.DataFrame({
        "experiment": ["a", "b", "c", "d"], "answer": ["different", "different", "equivalent", "undecided"],
        "nb_low": [-0.2, -0.2, -0.03, -1.0], "nb_high": [0.01, -0.1, 0.01, 1.0],
    })  # fmt: skip
    assert answers.caution(rows).endswith("2 of these 3 answers would be undecided: `a`, `c`.")
    assert answers.caution(rows.iloc[1:2]).endswith("this answer would be the same.")
    assert answers.caution(rows.assign(answer=answers.UNDECIDED)) == ""


def test_a_fit_that_collapsed_is_named_and_kept(repeats):
    assert answers.collapsed_fits(PROFILE, "isolation", repeats) == ""
    before = answers.answers(PROFILE, "isolation", repeats)
    run = repeats["crop_ssm"][0]
    frame = run.predictions
    bad = frame.assign(logit=frame["logit"].mask(frame["fold"] == 2, -frame["logit"]))
    fallen = SimpleNamespace(config=run.config, predictions=bad)
    changed = repeats | {"crop_ssm": [fallen, *repeats["crop_ssm"][1:]]}
    said = answers.collapsed_fits(PROFILE, "isolation", changed)
    assert said.startswith("One fit of `crop_ssm` collapsed: in fold 3 of repeat 1 its AUC is 0.1")
    assert "in the other 9 fits 0.8" in said
    row = answers.answers(PROFILE, "isolation", changed).set_index("experiment").loc["crop_ssm"]
    assert row["difference"] < before.set_index("experiment").loc["crop_ssm", "difference"] - 0.05
    alone = answers.compare_repeats(repeats["crop_plain"], repeats["crop_ssm"][1:])
    assert f"Without its repeat the difference would be {alone.value:+.3f}" in said


def test_scores_come_with_their_question(repeats):
    table = answers.scores(PROFILE, "isolation", repeats)
    assert table["experiment"].tolist() == ["crop_plain", "crop_ssm", "crop_attention", "crop_no_blocks"]
    assert table["auc_low"].lt(table["auc"]).all() and table["auc"].lt(table["auc_high"]).all()


@pytest.mark.parametrize(("p", "p_equivalence", "word"), [
    (0.01, 0.9, "different"), (0.9, 0.01, "equivalent"), (0.9, 0.9, "undecided"),
    (0.01, 0.01, "different, but by less than the bound"),
])  # fmt: skip
def test_the_words_of_the_protocol(p, p_equivalence, word):
    assert answers.answer(p, p_equivalence) == word


def test_overridden_gates_are_compared_with_the_network_as_it_is(tmp_path):
    learned = [written(tmp_path, "crop", seed, 1.5) for seed in (0, 1)]
    table = answers.interventions({"crop": learned})
    assert table[["network", "intervention", "answer", "repeats"]].to_numpy().tolist() == [
        ["crop", "shut", "different", 2]
    ]
    waiting = answers.interventions({"crop": learned, "crop_gate_token": ()})
    assert waiting["network"].tolist() == ["crop"] and waiting.attrs["waiting"] == len(answers.OVERRIDDEN)
    single = answers.compare_repeats(learned, [run_with_shut_gates(run) for run in learned])
    assert waiting["p_difference"].iloc[0] == pytest.approx(min(1, 5 * single.p))  # Holm: of one and four planned


def run_with_shut_gates(run):
    shut = run.interventions.query("intervention == 'shut'").set_index("sample_id")["logit"]
    frame = run.predictions
    return SimpleNamespace(config=run.config, predictions=frame.assign(logit=frame["sample_id"].map(shut)))


def test_networks_without_learned_gates_have_nothing_to_override():
    networks = answers.gated_networks(PROFILE, {})
    assert {"crop", "crop_gate_token", "crop_160_16"} <= set(networks)
    assert not {"crop_plain", "crop_gate_fixed", "crop_gate_random", "long_plain"} & set(networks)


def test_routing_is_told_network_by_network():
    row = {"difference": -0.02, "difference_low": -0.03, "difference_high": -0.01, "reach": 0.01}
    told = [("a", "frozen", "equivalent"), ("a", "open", "equivalent"), ("a", "shut", "different")]
    told += [("b", "frozen", "different"), ("b", "shuffled", "equivalent")]
    table = pd.DataFrame([{"network": n, "intervention": i, "answer": a, **row} for n, i, a in told])
    said = answers.routing(table)
    assert said.startswith("In 1 of 2 networks with learned gates the score is equivalent")
    assert "or open: `a`. In `b`: frozen: different, -0.020 (-0.030 to -0.010); shuffled: equivalent" in said
    assert "shut" not in said


def test_failures_are_counted_over_fits(repeats):
    signs = answers.failure_signs(repeats).set_index("experiment")
    assert signs["fits"].to_dict() == {"crop_plain": 10, "crop_ssm": 10, "crop_attention": 5, "crop_no_blocks": 10}
    assert (signs["overcalling"] <= signs["fits"]).all() and not signs["gate saturation"].any()
    assert signs["underfitting"].to_dict() == {
        "crop_plain": 0, "crop_ssm": 2, "crop_attention": 0, "crop_no_blocks": 0,
    }  # fmt: skip


def test_nothing_is_said_where_nothing_was_run(repeats):
    table = answers.answers(PROFILE, "fusion", repeats)
    assert table.empty
    assert answers.sentence(table, "dual") == "No variant has been compared with `dual` yet."


def test_the_forest_shows_the_bound_and_the_words(repeats):
    table = answers.answers(PROFILE, "isolation", repeats)
    axes = figures.equivalence_forest(table, "crop_plain", EQUIVALENCE).axes[0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels[0] == "state-space mixers only: equivalent" and len(labels) == 3
    assert any("within ±0.02" in handle.get_label() for handle in axes.patches)


def test_every_group_begins_with_what_the_others_are_compared_with():
    asked = {name for names in read_groups(PROFILE).values() for name in names}
    assert asked == {config.experiment for config in experiment_configs(PROFILE, "all")}


def test_the_geometries_are_chosen_by_the_rule_once_all_have_run(monkeypatch):
    """`crop` has 36 tokens, `crop_224_32` 49, the others 144, 100 and 196."""
    profile = get_profile("mirror-cv")
    auc = {"crop": 0.86, "crop_96_8": 0.65, "crop_160_16": 0.80, "crop_224_16": 0.81, "crop_224_32": 0.82}
    table = pd.DataFrame({"experiment": [*auc], "auc": [*auc.values()]})
    repeats = {name: [SimpleNamespace(config=experiment_configs(profile, name)[0])] for name in auc}
    monkeypatch.setattr(answers, "scores", lambda *_: table)
    assert answers.geometries(profile, repeats) == {"best": "crop", "long": "crop_224_16"}
    monkeypatch.setattr(answers, "scores", lambda *_: table.head(4))
    assert answers.geometries(profile, repeats) == {}


def test_series_are_compared_network_by_network(run_homes):
    """The second minus the first, where both have a repeat; baselines have no encoder."""
    first, second = ({name: [written(records.FRESH / mode, name, 0, gain)] for name in names}
                     for mode, gain, names in (("a", 1.0, ("crop", "crop_plain", "baseline_birads")),
                                               ("b", 1.5, ("crop", "crop_ssm", "baseline_birads"))))  # fmt: skip
    [row] = answers.between_series(first, second).to_dict("records")
    assert row["experiment"] == "crop" and row["difference"] > 0
