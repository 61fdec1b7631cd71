"""Tables from run records: hand-made records in, every number traceable to them; verdicts follow the protocol."""

import ast
import html
import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from mammo_lib.analysis import tables as results
from mammo_lib.config import ROOT, DataConfig, RunConfig, get_profile
from mammo_lib.errors import InputError
from mammo_lib.runs.experiments import read_experiments
from mammo_lib.runs.records import Run, write_json
from mammo_lib.statistics import Interval, auc, mcnemar

PAPER, SMOKE = get_profile("paper"), get_profile("smoke")
RECEIPT = {"opened_at": "2026-01-01", "profile": "paper", "runs": [], "protocol_hash": "p", "added_after": None}


def write_run(home, experiment, seed, strength=1.0, n=40, **receipt):
    """A record as training and opening leave it: validation and test rows whose scores hold some of the label."""
    generator = np.random.default_rng([seed, int(10 * strength)])
    label = np.tile([0, 1, 1, 0, 1], 2 * n // 5)
    logit = strength * (2 * label - 1) + generator.normal(size=2 * n)
    frame = pd.DataFrame({"sample_id": [f"b{i}" for i in range(2 * n)], "patient_id": np.arange(2 * n) // 2})
    frame = frame.assign(label=label, split=np.repeat(["validation", "test"], n), logit=logit)
    frame = frame.assign(probability=1 / (1 + np.exp(-logit)), threshold=0.5, temperature=1.0)
    run = Run(home / experiment / f"seed{seed}")
    run.folder.mkdir(parents=True)
    write_json(run.folder / "config.json", RunConfig(experiment=experiment, seed=seed).model_dump(mode="json"))
    write_json(run.folder / "receipt.json", RECEIPT | receipt)
    run.finish(frame, {"validation": {}, "test": {}})
    return run


@pytest.fixture
def runs(tmp_path):
    return {
        name: [write_run(tmp_path, name, seed, strength) for seed in range(3)]
        for name, strength in (("dual_stream", 1.0), ("no_seqmoe", 0.9), ("crop_only", 0.1))
    }


def test_the_summary_is_the_mean_of_the_records(runs):
    table = results.summary(runs).set_index("experiment")
    single = [auc(f["label"], f["probability"].to_numpy()) for f in results.rows_of(runs["dual_stream"])]
    row = table.loc["dual_stream"]
    assert row["mean"] == pytest.approx(np.mean(single))
    assert row["sd"] == pytest.approx(np.std(single, ddof=1))
    assert row["mean_low"] < row["mean"] < row["mean_high"]
    assert (row["seeds"], row["n"], row["status"]) == (3, 40, "frozen list")
    merged = results.together(runs["dual_stream"])
    assert row["ensemble"] == auc(merged["label"], merged["probability"].to_numpy())


def test_size_is_the_share_of_the_first_and_matched_within_five_percent(runs):
    table = results.summary(runs, parameters={"dual_stream": 100, "no_seqmoe": 96, "crop_only": 50})
    assert table["size"].tolist() == [1.0, 0.96, 0.5]
    assert table["matched"].tolist() == [True, True, False]


def test_differences_count_from_the_others_side(runs):
    table = results.differences(runs, "dual_stream").set_index("experiment")
    crop = table.loc["crop_only"]
    assert crop["difference"] < 0
    assert crop["difference_high"] < 0
    full, other = (results.together(runs[name]) for name in ("dual_stream", "crop_only"))
    right = [(f["probability"] >= f["threshold"]) == f["label"] for f in (full, other)]
    assert (crop["gained"], crop["lost"]) == ((right[1] & ~right[0]).sum(), (right[0] & ~right[1]).sum())
    decisions = [(f["probability"] >= f["threshold"]).astype(int) for f in (full, other)]
    assert crop["p_decisions"] >= mcnemar(full["label"], *decisions)  # Holm never lowers a p value
    assert results.differences({"dual_stream": runs["dual_stream"]}, "dual_stream").empty


def test_one_late_seed_marks_the_whole_experiment(runs, tmp_path):
    late = write_run(tmp_path, "late", 0, added_after="2026-01-02")
    alone = write_run(tmp_path, "alone", 0, profile=None)
    assert [results.is_exploratory(run) for run in (runs["dual_stream"][0], late, alone)] == [False, True, True]
    table = results.summary({**runs, "mixed": [*runs["no_seqmoe"][:2], late]}).set_index("experiment")
    assert table.loc["mixed", "status"] == "exploratory"
    assert table.loc["no_seqmoe", "status"] == "frozen list"


def test_openings_tell_whether_the_list_is_still_the_same(tmp_path):
    kept = write_run(tmp_path, "dual_stream", 0, list_hash=results.list_hash(PAPER))
    moved = write_run(tmp_path, "dual_stream", 1, list_hash="another", opened_at="2026-01-02")
    table = results.openings({"dual_stream": [kept, moved]}, PAPER)
    assert table["same_list"].tolist() == [True, False]
    assert table["same_protocol"].tolist() == [False, False]  # these receipts name no protocol of ours


def test_without_receipts_nothing_was_opened():
    assert results.openings({}, PAPER).empty and "opened_at" in results.openings({}, PAPER)


def test_a_closed_split_is_an_error_that_says_what_to_run(runs):
    with pytest.raises(InputError, match=r"no 'test_lesion' predictions \(it has validation, test\); run `mammo eval"):
        results.rows_of(runs["dual_stream"], "test_lesion")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.03, 0.03, "reproduced"),
        (-0.01, 0.02, "reproduced"),
        (-0.2, -0.031, "not reproduced"),
        (0.04, 0.1, "not reproduced"),
        (-0.031, 0.01, "undecidable"),
        (-0.1, 0.1, "undecidable"),
        (-0.04, -0.03, "undecidable"),
    ],
)
def test_verdicts_follow_the_protocol(low, high, expected):
    difference = Interval((low + high) / 2, low, high, 149)
    assert results.verdict(0.87, difference, "paper", seeds=5) == expected
    assert results.verdict(0.87, difference, "paper", seeds=4) == "not tested"
    assert results.verdict(0.87, difference, "mirror", seeds=5) == "not tested"


def test_beside_the_paper_every_row_has_a_verdict_and_a_reason(runs):
    published = results.read_published()
    table = results.beside_paper(published, runs, SMOKE)
    assert len(table) == len(published)
    assert set(table["verdict"]) == {"not tested"}
    assert table["why"].str.len().gt(0).all()
    head = table.iloc[0]
    assert head["ours"] - head["difference"] == pytest.approx(head["published"])
    missing = table[table["our_experiment"] == "whole_only"].iloc[0]
    assert math.isnan(missing["ours"])
    assert missing["why"] == "not run in this profile"


def test_a_copy_with_gaps_tests_nothing(runs, monkeypatch):
    """Even the paper profile, with seeds enough, says nothing about the paper where views were left out."""
    monkeypatch.setattr(results, "MIN_SEEDS", 1)
    paper = get_profile("paper")
    published = results.read_published().query("ours == 'dual_stream'")
    assert "not tested" not in set(results.beside_paper(published, runs, paper)["verdict"])
    data = paper.run.data.model_copy(update={"allow_missing": True})
    gaps = paper.model_copy(update={"run": paper.run.model_copy(update={"data": data})})
    table = results.beside_paper(published, runs, gaps)
    assert set(table["verdict"]) == {"not tested"}
    assert table["why"].str.contains("unreadable views left out").all()


def test_every_published_number_is_held_against_an_experiment_of_the_paper_profile():
    published = results.read_published()
    assert set(published["ours"]) <= set(read_experiments(PAPER))


def test_the_published_gain_is_five_breasts():
    assert results.published_gain(results.read_published()) == (5, 149)


def test_what_a_published_number_leaves_open():
    # accuracy .87 at 149: Wilson's half width is .054; 149 (.054 / .03)^2 is about 480 breasts.
    table = results.published_intervals(results.read_published()).set_index("name")
    row = table.loc["headline, accuracy"]
    assert row["half_width"] == pytest.approx(0.054, abs=5e-4)
    assert row["n_to_confirm"] == pytest.approx(480, abs=10)
    assert row["shift_to_refute"] == pytest.approx(0.084, abs=5e-4)
    assert "headline, f1" not in table.index


def test_what_differs_names_the_departures():
    assert results.what_differs(PAPER) == "nothing"
    assert "no ImageNet weights" in results.what_differs(SMOKE)
    assert results.what_differs(SMOKE).startswith(
        "a synthetic phantom instead of mammograms, 64-px images instead of 224, 4 folds instead of 5, "
        "the nano backbone instead of L"
    )
    wider = PAPER.model_copy(update={"run": RunConfig(data=DataConfig(crop_context=1.5))})
    assert "squares, 1.5 times the longer side of the lesion" in results.what_differs(wider)


def test_the_record_of_what_did_not_help_is_checked(tmp_path):
    assert results.did_not_help(tmp_path).empty
    path = tmp_path / results.DID_NOT_HELP
    path.write_text("tried,measured_on,value,reference,verdict\nlarger,validation,0.7,0.71,no\n")
    assert results.did_not_help(tmp_path)["tried"].tolist() == ["larger"]
    path.write_text("tried,value\nlarger,0.7\n")
    with pytest.raises(InputError, match="column 'measured_on' is missing"):
        results.did_not_help(tmp_path)


def test_readable_merges_an_estimate_with_its_bounds():
    table = pd.DataFrame(
        {
            "experiment": ["no_seqmoe"], "difference": [0.01], "difference_low": [-0.02], "difference_high": [0.04],
            "p_auc": [0.0001], "n": [149], "matched": [True], "parameters": [1.25e6], "published": [0.8322],
        }
    )  # fmt: skip
    shown = results.readable(table)
    assert shown.iloc[0].to_dict() == {
        "experiment": "no seqmoe", "difference": "+0.010 (-0.020 to +0.040)", "p auc": "< 0.001", "n": "149",
        "matched": "yes", "parameters": "1.25 M", "published": "0.8322",
    }  # fmt: skip


def test_a_shown_table_has_no_index_and_its_texts_stand_on_the_left():
    table = pd.DataFrame({"seen_in": [EVIL], "auc": [0.8], "auc_low": [0.7], "auc_high": [0.9]}, index=["row 7"])
    page = results.shown(table).to_html()
    cells = [html.unescape(cell) for cell in re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", page, re.DOTALL)]
    assert cells == ["seen in", "auc", EVIL, "0.800 (0.700 to 0.900)"]
    assert "<img" not in page
    assert re.findall(r"\.(col\d+) \{\s*text-align: left;", page) == ["col0"]


def test_whether_two_scores_can_be_told_apart_is_said_from_the_reference():
    table = pd.DataFrame(
        {"experiment": ["worse", "open", "behind"], "difference": [-0.12, 0.01, -0.01],
         "difference_low": [-0.2, -0.03, -0.05], "difference_high": [-0.03, 0.05, 0.03], "n": 149}
    )  # fmt: skip
    # The reference minus the other is the table's difference with its sign and its bounds exchanged.
    assert results.told_apart(table, "worse", "it") == (
        "better than it (AUC difference +0.120, 95 % CI +0.030 to +0.200)"
    )
    assert results.told_apart(table, "open", "it") == (
        "not shown to differ from it (AUC difference -0.010, 95 % CI -0.050 to +0.030)"
    )
    assert results.told_apart(table, "behind", "it") == (
        "not shown to differ from it (AUC difference +0.010, 95 % CI -0.030 to +0.050)"
    )


EVIL = "<img src=x onerror=alert(1)> $\\frac{1$ | `{role}` [a](b) {{ verdicts }} *b* _c_\n# d"


def test_markup_in_text_is_shown_and_not_obeyed():
    markdown_it = pytest.importorskip("markdown_it")  # of the extra that builds the book
    page = markdown_it.MarkdownIt("commonmark").render(f"Why: {results.as_text(EVIL)}.")
    shown = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page))).strip()
    assert shown == f"Why: {' '.join(EVIL.split())}."
    assert set(re.findall(r"<(\w+)", page)) == {"p"}


def test_every_table_of_a_chapter_escapes_its_cells():
    # Cells of the tables reach the book as HTML: a Styler escapes only where it is told to, in its last format.
    unescaped = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and ".style" in source:
                formats = [
                    node
                    for node in ast.walk(ast.parse(source))
                    if isinstance(node, ast.Call) and "style" in _chain(node.func) and _chain(node.func)[0] == "format"
                ]
                n_stylers = sum(isinstance(n, ast.Attribute) and n.attr == "style" for n in ast.walk(ast.parse(source)))
                escaped = sum(any(word.arg == "escape" for word in node.keywords) for node in formats)
                if not (n_stylers == len(formats) == escaped):
                    unescaped.append(f"{path.name}: {source}")
    assert not unescaped, unescaped


def _chain(node) -> list[str]:
    """Return the names of a chain of attributes and calls, the last one first."""
    names = []
    while isinstance(node, (ast.Attribute, ast.Call)):
        names += [node.attr] if isinstance(node, ast.Attribute) else []
        node = node.value if isinstance(node, ast.Attribute) else node.func
    return names
