"""Protocol 8 from records: the networks of the fourth look with films missing, and on another collection. No torch.

*Records* are ``{experiment: [record per seed]}``. In every table, an estimate ``x`` occupies the columns
``x x_low x_high``, or ``value low high`` where a figure draws it. Answers follow the rule of protocol 5.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import expit

from ..config import Profile
from ..errors import InputError
from ..runs import records as runs
from ..runs.experiments import read_experiments
from ..runs.records import EXTERNAL, INCOMPLETE, ONE_FILM, Run, part_of
from ..statistics import (
    Interval,
    auc_of,
    delong_test,
    difference_over_seeds,
    evaluate_calibration,
    holm,
    over_seeds,
    shift_over_seeds,
)
from .external_scores import by_kind, scored
from .fourth_look import REFERENCE, answered
from .missing import BOTH, input_name, worth
from .wording import estimate, in_words

DUAL = "final_dual"
STREAMS = {REFERENCE: "crop", DUAL: "crop+whole"}
PLANNED = {  # protocol 8: one family
    REFERENCE: (("CC", "crop"), ("MLO", "crop")),
    DUAL: ((BOTH, "crop"), (BOTH, "whole")),
}  # fmt: skip
SAME_DESIGN = {REFERENCE: "crop_held_out", DUAL: "dual_held_out"}  # of profile mirror-open
WHOLE = "whole stream"  # the experiment list's name for the network that sees no crop
VIEWS = {"cc": "CC", "mlo": "MLO"}
SETS = {"external_masses": "masses", "external": "all abnormal"}

Records = Mapping[str, Sequence[Run]]
Frames = Sequence[pd.DataFrame]


def incomplete_records(profile: Profile) -> dict[str, list[Run]]:
    """Return the committed records of a list's networks on test breasts with films missing, by experiment and seed.

    Raises
    ------
    InputError
        A network with a planned comparison lacks a seed.
    """
    return _of_list(profile, INCOMPLETE, PLANNED, f"mammo evaluate --incomplete --profile {profile.name}")


def records_elsewhere(profile: Profile, key: str = "mini_mias") -> dict[str, list[Run]]:
    """Return the committed records of a list's networks on another collection, by experiment and seed.

    Raises
    ------
    InputError
        A seed is missing for the crop stream, the reference of the comparisons, or no other network is complete.
    """
    found = _of_list(
        profile, f"{EXTERNAL}{key}", {REFERENCE}, f"mammo external --experiment {REFERENCE} --profile {profile.name}"
    )
    if len(found) < 2:
        raise InputError(f"{runs.COMMITTED / (EXTERNAL + key)}: no network to compare with {REFERENCE}")
    return found


def _of_list(profile: Profile, home: str, needed: Collection[str], command: str) -> dict[str, list[Run]]:
    """Return records by the experiment of the network that they score, in the order of the list.

    Networks with a missing seed are left out. ``home`` is the name of their folder, or the part of it that precedes the
    name of the experiment.
    """
    found: dict[str, dict[int, Run]] = {}
    for run in runs.all_runs(runs.COMMITTED):
        experiment = (run.environment.get("network") or "").partition("/")[0]
        if run.folder.parent.name not in (home, f"{home}{experiment}") or not experiment:
            continue
        if run.config.seed in found.setdefault(experiment, {}):
            raise InputError(
                f"{run.folder}: a second record of {experiment}, seed {run.config.seed}; remove one of them"
            )
        found[experiment][run.config.seed] = run
    seeds = sorted(profile.seeds)
    complete = {
        name: [found[name][seed] for seed in seeds]
        for name in read_experiments(profile)
        if sorted(found.get(name, ())) == seeds
    }
    if missing := [name for name in needed if name not in complete]:
        raise InputError(
            f"{runs.COMMITTED}: no records of {missing[0]} with the seeds {seeds[0]} to {seeds[-1]}; make them with "
            f"`{command}`, then `mammo results publish`"
        )
    return complete


def seen(records: Sequence[Run], views: str, streams: str) -> list[pd.DataFrame]:
    """Return each network's scores of the test breasts that have both views, given only these views and streams."""
    frames = []
    for run in records:
        table = run.hidden_inputs
        rows = table[(table["split"] == "test") & (table["views"] == views) & (table["streams"] == streams)]
        if rows.empty:
            raise InputError(f"{run.folder}: no scores with views {views} and streams {streams}")
        frames.append(rows.assign(probability=expit(rows["logit"])).reset_index(drop=True))
    return frames


def by_input(records: Sequence[Run]) -> pd.DataFrame:
    """Return the AUC of every combination of inputs, the complete one first: ``name auc auc_low auc_high n``."""
    table, rows = records[0].hidden_inputs, []
    inputs = list(table[["views", "streams"]].drop_duplicates().itertuples(index=False, name=None))
    for views, streams in inputs:
        found = over_seeds(seen(records, views, streams), "auc")
        rows.append({"name": input_name(views, streams, inputs[0][1]), **estimate("auc", found.interval), "n": found.n})
    return pd.DataFrame(rows)


def inputs_beside_out_of_fold(profile: Profile, records: Records, crossed: Records) -> pd.DataFrame:
    """Return every input's AUC out of fold and on the test breasts: ``name out test`` with intervals, ``n_out n``.

    ``crossed`` are the repeats of profile ``mirror-open``, whose networks have the same design.
    """
    asked, parts = read_experiments(profile), []
    for name, other in SAME_DESIGN.items():
        out, _ = worth(crossed[other])
        out = out.rename(columns={"auc": "out", "auc_low": "out_low", "auc_high": "out_high", "n": "n_out"})
        test = by_input(records[name]).rename(columns={"auc": "test", "auc_low": "test_low", "auc_high": "test_high"})
        both = out.merge(test, on="name")
        parts.append(both.assign(name=f"{asked[name]['name']}: " + both["name"]))
    return pd.concat(parts, ignore_index=True)


def hidden_compared(profile: Profile, records: Records) -> pd.DataFrame:
    """Return the planned comparisons: ``experiment name answer difference ... p n``, as one family for Holm."""
    asked, rows, tests = read_experiments(profile), [], []
    for name, inputs in PLANNED.items():
        complete = seen(records[name], BOTH, STREAMS[name])
        for views, streams in inputs:
            own = seen(records[name], views, streams)
            change = difference_over_seeds(own, complete, "auc", same_networks=True)
            tests.append(delong_test(own[0]["label"].to_numpy(), _together(own), _together(complete))[1])
            said = f"{asked[name]['name']}: {input_name(views, streams, STREAMS[name])}"
            rows.append({"experiment": name, "name": said, **estimate("difference", change), "n": change.n})
    return _answered(rows, tests)


def one_film(profile: Profile, records: Records) -> pd.DataFrame:
    """Return each network's AUC on the breasts with one film: ``name all cc mlo`` with intervals, and their sizes.

    ``n malignant`` count all breasts, ``n_cc malignant_cc n_mlo malignant_mlo`` count them by view.
    """
    asked, rows = read_experiments(profile), []
    for name, seeds in records.items():
        frames = [part_of(run.predictions, ONE_FILM) for run in seeds]
        row = {"name": asked[name]["name"]}
        for key, inside in _by_view(frames[0]).items():
            row |= estimate(key, over_seeds([one[inside].reset_index(drop=True) for one in frames], "auc").interval)
        rows.append(row | _sizes(frames[0]))
    return pd.DataFrame(rows)


def _sizes(frame: pd.DataFrame) -> dict[str, int]:
    """Return the numbers of breasts and of malignant breasts, in all and by the view that exists."""
    sizes = {}
    for key, inside in _by_view(frame).items():
        end = "" if key == "all" else f"_{key}"
        sizes |= {f"n{end}": int(inside.sum()), f"malignant{end}": int(frame.loc[inside, "label"].sum())}
    return sizes


def readers_with_one_film(records: Records) -> dict[str, Interval]:
    """Return the AUC of the readers' assessment on the breasts with one film: ``all``, ``cc`` and ``mlo``."""
    frame = part_of(next(iter(records.values()))[0].predictions, ONE_FILM)
    return {key: auc_of(frame[inside], "assessment") for key, inside in _by_view(frame).items()}


def elsewhere(profile: Profile, records: Records) -> pd.DataFrame:
    """Return every network's AUC on another collection beside its own: ``name breasts external internal shift n``.

    ``internal`` are the held-out breasts of CBIS-DDSM with the same views masked; ``shift`` is external minus internal.
    """
    asked, rows = read_experiments(profile), []
    for split, breasts in SETS.items():
        for name, seeds in records.items():
            outside, inside = ([scored(run, one) for run in seeds] for one in (split, "internal_masked"))
            change = shift_over_seeds(outside, inside, "auc")
            rows.append(
                {
                    "name": asked[name]["name"], "breasts": breasts,
                    **estimate("external", over_seeds(outside, "auc").interval),
                    **estimate("internal", over_seeds(inside, "auc").interval),
                    **estimate("shift", change), "n": change.n, "seeds": len(seeds),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def elsewhere_compared(profile: Profile, records: Records) -> pd.DataFrame:
    """Compare each network with the crop stream on another collection, one family within each set of breasts."""
    asked, parts = read_experiments(profile), []
    for split, breasts in SETS.items():
        base, rows, tests = [scored(run, split) for run in records[REFERENCE]], [], []
        for name, seeds in records.items():
            if name == REFERENCE:
                continue
            own = [scored(run, split) for run in seeds]
            change = difference_over_seeds(own, base, "auc")
            tests.append(delong_test(own[0]["label"].to_numpy(), _together(own), _together(base))[1])
            row = {"experiment": name, "name": asked[name]["name"], "breasts": breasts}
            rows.append(row | estimate("difference", change) | {"n": change.n})
        parts.append(_answered(rows, tests))
    return pd.concat(parts, ignore_index=True)


def decisions_elsewhere(profile: Profile, records: Records) -> pd.DataFrame:
    """Return decisions and calibration there: ``name breasts sensitivity specificity calibration n malignant``.

    Sensitivity and specificity are means over seeds, each at the threshold that it was given on CBIS-DDSM. Calibration
    in the large is that of the mean logit of the seeds: mean probability minus share of malignant breasts.
    """
    asked, rows = read_experiments(profile), []
    for split, breasts in SETS.items():
        for name, seeds in records.items():
            frames = [scored(run, split) for run in seeds]
            row = {"name": asked[name]["name"], "breasts": breasts}
            for metric in ("sensitivity", "specificity"):
                row |= estimate(metric, over_seeds(frames, metric).interval)
            level = evaluate_calibration(_merged(frames))["calibration"]
            row |= {"calibration": level["value"], "calibration_low": level["low"], "calibration_high": level["high"]}
            rows.append(row | {"n": len(frames[0]), "malignant": int(frames[0]["label"].sum())})
    return pd.DataFrame(rows)


def kinds_elsewhere(profile: Profile, records: Records) -> pd.DataFrame:
    """Return the AUC of each network's mean logit by tissue and class of lesion, a column with interval per network."""
    asked, table = read_experiments(profile), pd.DataFrame()
    for name, seeds in records.items():
        kinds = by_kind(_merged([scored(run, "external") for run in seeds]))
        if table.empty:
            table = kinds[["name", "level", "n", "malignant"]].copy()
        said = asked[name]["name"]
        table = table.assign(**{said: kinds["value"], f"{said}_low": kinds["low"], f"{said}_high": kinds["high"]})
    return table


def _merged(frames: Frames) -> pd.DataFrame:
    """Return the predictions of the mean logit of several seeds, with the mean of their temperatures."""
    logit, temperature = _together(frames), np.mean([frame["temperature"].iloc[0] for frame in frames])
    return frames[0].assign(logit=logit, probability=expit(logit), temperature=temperature)


def _by_view(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    return {
        "all": np.ones(len(frame), bool),
        "cc": frame["has_CC"].to_numpy(bool),
        "mlo": frame["has_MLO"].to_numpy(bool),
    }


def _together(frames: Frames) -> np.ndarray:
    """Return the mean logit of several seeds, which is the ensemble's."""
    return np.mean([frame["logit"].to_numpy(float) for frame in frames], axis=0)


def _answered(rows: list[dict], tests: list[float]) -> pd.DataFrame:
    """Return a family of comparisons with Holm-corrected ``p``, and the ``answer`` in the third column."""
    table = pd.DataFrame(rows).assign(p=holm(tests))
    table.insert(2, "answer", answered(table, "p"))
    return table


def hidden_in_words(table: pd.DataFrame) -> str:
    """Say what hiding a film or a stream changes, from :func:`hidden_compared`."""
    said = (f"{row['name']} {in_words(row, 'difference')}, {row['answer']}" for row in table.to_dict("records"))
    return f"On {table['n'].iloc[0]} test breasts, against the same networks with every film: {'; '.join(said)}."


def answer_in_words(hidden: pd.DataFrame, alone: pd.DataFrame, readers: Interval) -> str:
    """Say in two sentences what one view hidden changes, and what networks and readers reach with one film."""
    cc, mlo = (hidden[hidden["experiment"] == REFERENCE].iloc[place] for place in (0, 1))
    return (
        f"On {cc['n']} test breasts the AUC of the crop network changes by {in_words(cc, 'difference')}, "
        f"{cc['answer']}, when it sees the CC view alone, and by {in_words(mlo, 'difference')}, {mlo['answer']}, when "
        f"it sees the MLO view alone. {one_film_in_words(alone, readers)}"
    )


def inputs_in_words(table: pd.DataFrame) -> str:
    """Say how the inputs with and without crops score on test breasts, from :func:`inputs_beside_out_of_fold`."""
    films = table["name"].str.contains("whole only")
    said = []
    for own, called in ((table[~films], "with crops"), (table[films], "without crops")):
        change = own["test"] - own["out"]
        said.append(f"The {len(own)} inputs {called} change by {change.min():+.3f} to {change.max():+.3f}")
    return (
        f"{'. '.join(said)} from out of fold to the test breasts. The inputs share networks and breasts, so that they "
        "are not independent observations, and the two columns come from different networks; nothing here is tested."
    )


def one_film_in_words(table: pd.DataFrame, readers: Interval) -> str:
    """Say in one sentence what the networks and the readers reach on breasts with one film, from :func:`one_film`."""
    first, crops = table.iloc[0], _with_crops(table)
    return (
        f"On {first['n']} breasts with a mass annotated in one view only, {first['malignant']} of them malignant, the "
        f"{len(crops)} networks with crops reach {_span(crops['all'])}, the readers' BI-RADS assessment {readers} "
        "(no comparison was planned)."
    )


def by_view_in_words(table: pd.DataFrame, readers: Mapping[str, Interval]) -> str:
    """Describe the same for each view that exists, with the numbers of malignant breasts."""
    first, crops, said = table.iloc[0], _with_crops(table), []
    whole = table.drop(crops.index).to_dict("records")
    for key, view in VIEWS.items():
        own, films = readers[key], "".join(f", the {row['name']} {row[key]:.3f}" for row in whole)
        said.append(
            f"{view} alone, {first[f'n_{key}']} breasts, {first[f'malignant_{key}']} malignant: networks with crops "
            f"{_span(crops[key])}{films}, readers {own.value:.3f} ({own.low:.3f} to {own.high:.3f})"
        )
    return ". ".join(said) + "."


def elsewhere_in_words(table: pd.DataFrame) -> str:
    """Say what the networks reach on another collection, one sentence per set of breasts, from :func:`elsewhere`."""
    return " ".join(_said_elsewhere(breasts, own) for breasts, own in table.groupby("breasts", sort=False))


def _said_elsewhere(breasts: str, own: pd.DataFrame) -> str:
    crops = _with_crops(own)
    better, lost = int((crops["external_low"] > 0.5).sum()), int((own["shift_high"] < 0).sum())
    films = "".join(
        f", the {row['name']} {in_words(row, 'external', '')}" for _, row in own.drop(crops.index).iterrows()
    )
    return (
        f"On {own['n'].iloc[0]} breasts ({breasts}) the {len(crops)} networks with crops reach "
        f"{_span(crops['external'])}, {_of(better, len(crops), 'is', 'are')} better than chance{films}. A loss against "
        f"CBIS-DDSM is shown for {lost or 'none'} of {len(own)}; the intervals include losses of up to "
        f"{-own['shift_low'].min():.2f}."
    )


def _with_crops(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["name"] != WHOLE]


def _span(values: pd.Series) -> str:
    return f"{values.min():.3f} to {values.max():.3f}" if len(values) > 1 else f"{values.iloc[0]:.3f}"


def _of(number: int, all_of: int, one: str, several: str) -> str:
    """Return how many of a list are something.

    >>> _of(0, 5, "is", "are"), _of(1, 5, "is", "are"), _of(5, 5, "is", "are")
    ('none of them is', '1 of them is', 'all are')
    """
    if number == all_of:
        return f"all {several}"
    return f"{number or 'none'} of them {one if number < 2 else several}"
