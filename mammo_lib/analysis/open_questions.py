"""One sentence with a number for each question that the paper raises or leaves open, from records.

These functions read only committed records and do not import torch. A question whose runs have no record yet says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from ..config import get_profile
from ..data.cbis_ddsm.tables import read_tables
from ..data.sample import sample_folder
from ..runs.records import Run
from ..statistics import subgroups
from . import (
    answers,
    efficiency,
    external_scores,
    fifth_look,
    fourth_look,
    further_targets,
    learning,
    limits,
    missing,
    official_split,
    resolution,
    sentences,
)
from .answers import Repeats
from .tables import ensemble_predictions
from .wording import in_words

NOT_YET = "Not run yet."
CALLED = {  # what the first variant of a group is
    "gates": "learned gates", "isolation": "hybrid blocks without gates", "streams": "both streams",
    "gates_long": "learned gates", "isolation_long": "hybrid blocks without gates",
    "geometry": "96 px at stride 16", "targets": "the label alone", "fusion": "a gate per feature",
    "additions": "the crop network with all of them",
}  # fmt: skip


def open_questions() -> pd.DataFrame:
    """Return ``question chapter answer``; ``chapter`` is the file name of the chapter that shows the numbers."""
    parts, again, held_out = (
        answers.find_repeats(get_profile(name)) for name in ("mirror-cv", "mirror-cv-training", "mirror-open")
    )
    sizes = resolution.every_side()
    rows: list[tuple[str, str, Callable[[], str]]] = [
        ("Do SeqMoE's gates help?", "06a_answers_by_cross_validation", lambda: _both_series("gates", parts, again)),
        ("Does the sequence mixer matter?", "06a_answers_by_cross_validation",
         lambda: _both_series("isolation", parts, again)),
        ("Do gates or mixers matter on longer sequences, 100 tokens?", "06a_answers_by_cross_validation",
         lambda: " ".join([*(_both_series(group, parts, again) for group in ("gates_long", "isolation_long")),
                           _gates_on_100_tokens(again)])),
        ("Are two streams better than one?", "06a_answers_by_cross_validation",
         lambda: _both_series("streams", parts, again)),
        ("Does the kind of fusion matter?", "06a_answers_by_cross_validation",
         lambda: _both_series("fusion", parts, again)),
        ("What do our additions bring?", "06a_answers_by_cross_validation",
         lambda: _both_series("additions", parts, again)),
        ("Did the networks fit their training breasts?", "06a_answers_by_cross_validation",
         lambda: _learned(parts, again)),
        ("Would more breasts help?", "06b_what_limits_the_network", lambda: _breasts(parts)),
        ("Would better frozen stages help?", "06b_what_limits_the_network", lambda: _stages(parts)),
        ("Why does the official test set score lower?", "05a_why_the_test_set_scores_lower", _lower_on_test),
        ("What do the networks reach on the test set, at the fourth look?", "05b_the_fourth_look", _fourth_look),
        ("What happens when a view is missing?", "08_missing_views_and_density", lambda: _views(held_out)),
        ("Do the test breasts show the same, at the fifth look?", "08a_the_fifth_look", _fifth_look),
        ("Does breast density matter?", "08_missing_views_and_density", lambda: _density(held_out)),
        ("Does the network add to the readers' BI-RADS category?", "08_missing_views_and_density",
         lambda: _beyond(held_out)),
        ("Do further targets help?", "09_calcifications_and_more_than_one_task",
         lambda: _group("mirror-open", "targets", held_out)),
        ("What is known about calcifications?", "09_calcifications_and_more_than_one_task", _calcifications),
        ("What does the network cost?", "10_resolution_and_efficiency", _cost),
        ("Does a larger input help a trained crop network?", "10_resolution_and_efficiency",
         lambda: f"{_group('mirror-cv', 'geometry', parts)} Training mode: "
         f"{resolution.larger_in_short(resolution.in_training_mode())}"),
        ("Would larger crops help?", "10_resolution_and_efficiency",
         lambda: resolution.crops_in_short(sizes)),
        ("Would larger whole films help?", "10_resolution_and_efficiency", lambda: _films(sizes)),
        ("Does it hold on another collection?", "11_another_collection",
         lambda: external_scores.transfer_answer(external_scores.external_records("mini_mias"))),
        ("And the networks of the fourth look?", "11_another_collection", _list_elsewhere),
    ]  # fmt: skip
    return pd.DataFrame([{"question": q, "chapter": chapter, "answer": say()} for q, chapter, say in rows])


def _group(profile: str, group: str, repeats: Repeats) -> str:
    settings = get_profile(profile)
    return sentences.brief(answers.answers(settings, group, repeats), CALLED[group], len(settings.seeds))


def _both_series(group: str, first: Repeats, second: Repeats) -> str:
    return f"{_group('mirror-cv-training', group, second)} First series: {_group('mirror-cv', group, first)}"


def _gates_on_100_tokens(second: Repeats) -> str:
    found, _ = answers.gates_on_100_tokens(second)
    said = sentences.brief(found, "learned gates, one per image", len(get_profile(answers.LONG_GATES).seeds))
    return f"Other gates on 100 tokens (protocol 11): {said}"


def _films(sizes: Repeats) -> str:
    trained = resolution.again_in_short(resolution.in_training_mode(), sizes)
    return f"Frozen stages. {resolution.frozen_films_in_short(sizes)} Networks, encoder in training mode. {trained}"


def _stages(repeats: Repeats) -> str:
    settings = get_profile("mirror-limits")
    found = limits.against_reference(
        settings, "stages", repeats.get(limits.REFERENCE, ()), answers.find_repeats(settings)
    )
    return sentences.brief(found, "the stages of EfficientNet-Lite0", len(settings.seeds))


def _breasts(repeats: Repeats) -> str:
    fewer = answers.find_repeats(get_profile("mirror-limits"))
    if not fewer or limits.REFERENCE not in repeats:
        return NOT_YET
    curve = limits.learning_curve(limits.by_share(repeats[limits.REFERENCE], fewer), read_tables(sample_folder()))
    if not curve.per_doubling:
        return NOT_YET
    *_, fewer, every = curve.points.itertuples()
    return (
        f"A line through the points rises by {in_words(curve.per_doubling, 'slope')} in AUC when the training breasts "
        f"double; but with {fewer.breasts:.0f} in a fold the AUC is {fewer.auc:.3f}, with all {every.breasts:.0f} "
        f"{every.auc:.3f}. Fewer breasts also meant fewer training steps."
    )


def _lower_on_test() -> str:
    record = official_split.read_record()
    return f"{official_split.short_answer(record)} {official_split.division_in_words(record)}"


def _fourth_look() -> str:
    settings = get_profile("mirror-final")
    runs = {name: [run for run in seeds if run.is_evaluated] for name, seeds in answers.find_repeats(settings).items()}
    if any(len(runs.get(name, ())) < len(settings.seeds) for name in fourth_look.OUT_OF_FOLD):
        return NOT_YET
    dual = fourth_look.beside_out_of_fold(settings, {"final_dual": runs["final_dual"]}, {}).iloc[0]
    said = fourth_look.compared_in_words(fourth_look.compared(settings, runs))
    return f"Both streams reach an AUC of {in_words(dual, 'test', '')}. {said}"


def _fifth_look() -> str:
    settings = get_profile("mirror-final")
    records = fifth_look.incomplete_records(settings)
    hidden, alone = fifth_look.hidden_compared(settings, records), fifth_look.one_film(settings, records)
    return fifth_look.answer_in_words(hidden, alone, fifth_look.readers_with_one_film(records)["all"])


def _list_elsewhere() -> str:
    settings = get_profile("mirror-final")
    records = fifth_look.records_elsewhere(settings)
    return fifth_look.elsewhere_in_words(fifth_look.elsewhere(settings, records))


def _learned(first: Repeats, second: Repeats) -> str:
    networks = {
        f"{images}, {series} series": own[name] for series, own in (("first", first), ("second", second))
        for name, images in (("crop", "crops"), ("whole", "whole films")) if name in own
    }  # fmt: skip
    return learning.fitted_in_words(learning.fitted(networks)) if networks else NOT_YET


def _views(repeats: Repeats) -> str:
    if "crop_held_out" not in repeats:
        return NOT_YET
    lost = missing.worth(repeats["crop_held_out"])[1].set_index("experiment")
    said = [
        f"with {hidden} hidden the AUC changes by {in_words(one, 'difference')}, {one['answer']}"
        for hidden, one in (("MLO", lost.loc["CC only"]), ("CC", lost.loc["MLO only"]))
    ]
    trained = [
        f"that of the network of {called} by {in_words(one, 'difference')}, {one['answer']}"
        for called, prepared, usual in (
            ("both streams", "dual_dropout", "dual_held_out"), ("crops", "crop_view_dropout", "crop_held_out"),
        ) if prepared in repeats and usual in repeats
        for one in [answers.as_answers(missing.compare_inputs(repeats[prepared], repeats[usual])).iloc[0]]
    ]  # fmt: skip
    said = f"Of the crop network, out of fold on {lost['n'].iloc[0]} training breasts, {'; '.join(said)}"
    if not trained:
        return f"{said} {_of_planned(repeats)}."
    changed = f"Training with hidden inputs changes the AUC when nothing is missing: {'; '.join(trained)}."
    return f"{said} {_of_planned(repeats)}. {changed}"


def _of_planned(repeats: Repeats) -> str:
    return f"[{len(repeats['crop_held_out'])} of {len(get_profile('mirror-open').seeds)} repeats]"


def _density(repeats: Repeats) -> str:
    if "crop_held_out" not in repeats:
        return NOT_YET
    found = missing.density_difference(repeats["crop_held_out"])
    return (
        f"The AUC of the crop network, out of fold, in density 1-2 minus that in density 3-4 is "
        f"{in_words(found, 'difference')}; a true difference of {found['detectable']:.2f} would have been found with "
        f"80 % power. {missing.density_on_test(_of_both_streams())}"
    ).strip()


def _beyond(repeats: Repeats) -> str:
    if "crop_held_out" not in repeats:
        return NOT_YET
    added, _ = missing.beyond_assessment(repeats["crop_held_out"])
    return (
        f"Out of fold on {added.n} training breasts, adding the crop network to the assessment changes the AUC by "
        f"{added} {_of_planned(repeats)}. On the test breasts the two were not combined.{_within_four()}"
    )


def _of_both_streams() -> Sequence[Run]:
    return answers.find_repeats(get_profile("mirror")).get("dual_stream", ())


def _within_four() -> str:
    """Say what the network of both streams reaches within BI-RADS 4 on the test breasts; empty without its records."""
    runs = _of_both_streams()
    if not runs:
        return ""
    four = subgroups(ensemble_predictions(runs), {"assessment": "BI-RADS"}).set_index("level").loc["4"]
    return (
        f" Within BI-RADS 4 the network of both streams reaches an AUC of {four.value:.2f} ({four.low:.2f} to "
        f"{four.high:.2f}) there (chapter 05)."
    )


def _calcifications() -> str:
    one = further_targets.calcification_baselines().set_index(["definition", "baseline"]).loc[("calc", "birads")]
    return (
        f"No network has been scored. The readers' assessment reaches {in_words(one, 'test', '')} on the "
        f"{one['n_test']} official calcification test breasts."
    )


def _cost() -> str:
    one = efficiency.counted().set_index(["network", "side"]).loc[("Mammo-Mamba-L, two streams", 224)]
    return (
        f"{one['g']:.0f} x 10^9 multiply-adds per breast for the L variant; the selective scan is "
        f"{one['selective scan']:.2%} of them."
    )
