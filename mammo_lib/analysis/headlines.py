"""What is known so far, as a table of comparisons that a figure can show, for README, front page and chapter 12.

The table is computed from committed records. :mod:`mammo_lib.analysis.open_questions` gives the long answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from ..config import get_profile
from ..errors import InputError
from ..runs.records import Run
from . import answers, external_scores, fourth_look, limits, missing, official_split
from .answers import DIFFERENT, UNDECIDED, Repeats
from .wording import estimate, includes_zero

Rows = Iterator[dict]
COLUMNS = (
    "key", "question", "compared", "difference", "difference_low", "difference_high", "answer", "remark", "chapter",
)  # fmt: skip
FROM_FIRST = "from the first series"


class _Records(NamedTuple):
    """Repeats by experiment: both series of protocol 2, and the networks of protocol 3."""

    first: Repeats
    second: Repeats
    held_out: Repeats


def headlines() -> pd.DataFrame:
    """Return one row per comparison, with the columns :data:`COLUMNS`.

    ``answer`` is that of :func:`mammo_lib.analysis.answers.answers` where a protocol planned the comparison with a
    bound of equivalence; elsewhere it says whether the interval excludes 0. ``chapter`` is the file name of the
    chapter that shows the numbers. A question has no rows from the first on that lacks a record.
    """
    records = _Records(
        *(answers.find_repeats(get_profile(name)) for name in ("mirror-cv", "mirror-cv-training", "mirror-open"))
    )
    questions: dict[str, Callable[[_Records], Rows]] = {
        "Does a network reach the readers?": _readers,
        "Do SeqMoE's gates help?": _gates,
        "Does the selective scan help?": _scan,
        "Does the whole film add to the crop?": _films,
        "What else changes the AUC?": _changes,
        "Is the AUC as high on other breasts?": _elsewhere,
    }
    rows = [row | {"question": question} for question, ask in questions.items() for row in _answered(ask, records)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _answered(ask: Callable[[_Records], Rows], records: _Records) -> list[dict]:
    """Return a question's rows up to the first that lacks a record, as in a copy without them, or in a rehearsal."""
    rows = []
    with contextlib.suppress(InputError):
        rows.extend(ask(records))
    return rows


def _runs(repeats: Repeats, name: str) -> Sequence[Run]:
    """Return the runs of an experiment, which must be there."""
    if not repeats.get(name):
        raise InputError(f"{name}: no record")
    return repeats[name]


def _compared(table: pd.DataFrame, name: str) -> pd.Series:
    """Return a row of a table of :func:`mammo_lib.analysis.answers.answers`, which must be there."""
    if table.empty or name not in table["experiment"].tolist():
        raise InputError(f"{name}: not compared yet")
    return table.set_index("experiment").loc[name]


def _readers(records: _Records) -> Rows:
    final = answers.find_repeats(get_profile("mirror-final"))
    aim, _ = fourth_look.best_against_readers({name: _runs(final, name) for name in fourth_look.AIM})
    yield _of_interval(
        "readers", "network minus readers' BI-RADS", estimate("difference", aim),
        f"{aim.n} test breasts; the best network by cross-validation when protocol 5 was fixed (crops, attention "
        "alone), fourth look",
        "05b_the_fourth_look",
    )  # fmt: skip
    added, _ = missing.beyond_assessment(_runs(records.held_out, "crop_held_out"))
    yield _of_interval(
        "assessment", "BI-RADS with network minus alone", estimate("difference", added),
        f"{added.n} training breasts out of fold; {FROM_FIRST}", "08_missing_views_and_density",
    )  # fmt: skip


def _gates(records: _Records) -> Rows:
    few, many = _in_both_series(records, "gates"), _in_both_series(records, "gates_long")
    yield _of_part(few, "crop_plain", "gates", "no gates, 36 tokens")
    yield _of_part(many, "long_plain", "gates_long", "no gates, 100 tokens")
    yield _of_part(few, "crop_gate_fixed", "fixed", "gates fixed at 0.5, 36 tokens")
    longer, _ = answers.gates_on_100_tokens(records.second)
    yield _row(
        "fixed_long", "gates fixed at 0.5, 100 tokens", _compared(longer, "long_gate_fixed"), "protocol 11",
        "06a_answers_by_cross_validation",
    )  # fmt: skip


def _scan(records: _Records) -> Rows:
    few, many = _in_both_series(records, "isolation"), _in_both_series(records, "isolation_long")
    yield _of_part(few, "crop_gated_conv", "scan", "gated convolution, 36 tokens")
    yield _of_part(few, "crop_no_blocks", "blocks", "no token blocks, 36 tokens")
    yield _of_part(many, "long_gated_conv", "scan_long", "gated convolution, 100 tokens")
    yield _of_part(many, "long_no_blocks", "blocks_long", "no token blocks, 100 tokens")


def _films(records: _Records) -> Rows:
    streams = _in_both_series(records, "streams")
    yield _of_part(streams, "crop", "crop", "crops alone")
    yield _of_part(streams, "whole", "whole", "whole films alone")
    yield _of_part(_in_both_series(records, "fusion"), "dual_mean", "fusion", "both averaged, not gated")
    frozen = _runs(answers.find_repeats(get_profile("mirror-resolution")), "stages_whole_96")
    if (gap := answers.compare_repeats(frozen, _runs(records.second, "whole"))) is None:
        raise InputError("whole, stages_whole_96: no repeat that both have")
    yield _of_interval(
        "whole_frozen", "whole films: network minus regression", estimate("difference", gap),
        "a logistic regression on the network's own frozen stages", "10_resolution_and_efficiency",
    )  # fmt: skip


def _changes(records: _Records) -> Rows:
    views, deeper = get_profile("mirror-open"), get_profile("mirror-limits")
    one_view = answers.answers(views, "view_training", records.held_out)
    reference = _runs(records.first, limits.REFERENCE)
    stages = limits.against_reference(deeper, "stages", reference, answers.find_repeats(deeper))
    additions = _in_both_series(records, "additions")
    yield _of_part(additions, "crop_labels_only", "label", "label alone, not the readers' words")
    for view in ("cc", "mlo"):
        yield _row(
            view, f"trained on {view.upper()} alone", _compared(one_view, f"crop_{view}"),
            f"minus both views; {FROM_FIRST}", "08_missing_views_and_density",
        )  # fmt: skip
    for size in ("lite1", "lite2"):
        yield _row(
            size, f"stages of {size.title()}, not Lite0", _compared(stages, f"crop_{size}"),
            f"frozen stages of EfficientNet; {FROM_FIRST}", "06b_what_limits_the_network",
        )  # fmt: skip


def _elsewhere(_: _Records) -> Rows:
    network = (record := official_split.read_record())["scores"][0]
    yield _of_interval(
        "test_set", "out of fold minus test breasts", network,
        f"networks of one kind: {network['n_train']} training breasts, first repeat, {FROM_FIRST}; "
        f"{network['n_test']} test breasts, protocol 1; p = {network['p_holm']:.2f} after Holm; "
        f"{official_split.rule_in_words(record)}",
        "05a_why_the_test_set_scores_lower",
    )  # fmt: skip
    own = external_scores.external_records("mini_mias")
    loss = external_scores.mass_loss(own)
    yield _of_interval(
        "mini_mias", "mini-MIAS minus CBIS-DDSM", loss,
        f"the released network, {FROM_FIRST}; {loss['n']} masses; CC absent, and hidden on CBIS-DDSM; "
        f"{external_scores.threshold_in_words(own)}",
        "11_another_collection",
    )  # fmt: skip


def _in_both_series(records: _Records, group: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the answers of a group of protocol 2 in the second series, and in the first."""
    return (
        answers.answers(get_profile("mirror-cv-training"), group, records.second),
        answers.answers(get_profile("mirror-cv"), group, records.first),
    )


def _of_part(series: tuple[pd.DataFrame, pd.DataFrame], experiment: str, key: str, compared: str) -> dict:
    """Return what a part of the network changes in the second series, and the first series' answer where it differs."""
    row, before = (_compared(table, experiment) for table in series)
    remark = "" if before["answer"] == row["answer"] else f"first series: {before['answer']}"
    return _row(key, compared, row, remark, "06a_answers_by_cross_validation")


def _of_interval(key: str, compared: str, found: Mapping, remark: str, chapter: str) -> dict:
    """Return a comparison that has no bound of equivalence."""
    answer = UNDECIDED if includes_zero(found, "difference") else DIFFERENT
    return _row(key, compared, {**found, "answer": answer}, remark, chapter)


def _row(key: str, compared: str, found: Mapping, remark: str, chapter: str) -> dict:
    kept = {name: found[name] for name in ("difference", "difference_low", "difference_high", "answer")}
    return {"key": key, "compared": compared, **kept, "remark": remark, "chapter": chapter}
