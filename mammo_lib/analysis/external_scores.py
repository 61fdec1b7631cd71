"""Scores on another collection beside those on CBIS-DDSM: tables of chapter 11, from committed records. No torch.

``records`` is what :func:`external_records` returns, score -> record. Its predictions have the splits ``external``,
``internal`` and ``internal_masked`` (:mod:`mammo_lib.inference.transfer`). In every table, an estimate ``x`` occupies
``x x_low x_high``, or ``value low high`` where a figure draws it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from ..data.films import read_films
from ..data.sample import SAMPLE
from ..errors import InputError
from ..runs.records import COMMITTED, EXTERNAL, Run, all_runs, part_of
from ..statistics import Interval, delong_interval, paired_differences, stratified_auc, subgroups, unpaired_difference
from ..statistics.seeds import ensemble
from .wording import in_words

NETWORK = "network"
RELEASED = "released/"  # the name of the network that the protocol fixed begins with this
STAGES = {
    "internal": "CBIS-DDSM,\nboth views", "internal_masked": "CBIS-DDSM,\nMLO alone", "external_masses": "{},\nmasses",
    "external": "{},\nall abnormal",
}  # fmt: skip
TISSUES = {"F": 0, "G": 1, "D": 2}  # fatty, fatty-glandular, dense-glandular
AT_THRESHOLD = ("sensitivity", "specificity", "calibration", "calibration_scaled", "brier")
LEAST = 4  # breasts of a class: some kinds of lesion are rare, and the width of their intervals shows it
THIRDS = ("smallest third", "middle third", "largest third")


def external_records(key: str = "mini_mias") -> dict[str, Run]:
    """Return the committed records of a collection, the released network first, the baselines by their names.

    The networks of a list are those of :func:`mammo_lib.analysis.fifth_look.records_elsewhere`.

    Raises
    ------
    InputError
        There is no record of the released network.
    """
    runs = [run for run in all_runs(COMMITTED) if run.folder.parent.name == f"{EXTERNAL}{key}"]
    runs = [run for run in runs if str(run.environment.get("network") or RELEASED).startswith(RELEASED)]
    found = {(run.config.baseline or NETWORK).replace("_", " "): run for run in runs}
    if NETWORK not in found:
        raise InputError(f"{COMMITTED / (EXTERNAL + key)}: no record of a network; make it with `mammo external`")
    return {NETWORK: found.pop(NETWORK)} | {name: found[name] for name in sorted(found, reverse=True)}


def scored(run: Run, split: str) -> pd.DataFrame:
    """Return the predictions of a split; ``external_masses`` are the external breasts that have a mass."""
    frame = part_of(run.predictions, split.removesuffix("_masses"))
    frame = frame[frame["lesion_type"] == "mass"].reset_index(drop=True) if split.endswith("_masses") else frame
    return frame.assign(label=frame["label"].astype(int))


def stages(records: Mapping[str, Run]) -> pd.DataFrame:
    """Return every score's AUC from the training collection to the other: ``name split stage value low high n``."""
    rows = []
    for name, run in records.items():
        collection = run.environment["data_set"]
        for split, stage in STAGES.items():
            auc = {key: run.metrics[split]["auc"][key] for key in ("value", "low", "high", "n")}
            rows.append({"name": name, "split": split, "stage": stage.format(collection)} | auc)
    return pd.DataFrame(rows)


def losses(records: Mapping[str, Run]) -> pd.DataFrame:
    """Return external minus internal AUC with the same views masked: ``score breasts difference p`` and both."""
    rows = []
    for split in ("external_masses", "external"):
        for name, run in records.items():
            inside, outside = scored(run, "internal_masked"), scored(run, split)
            difference, p = unpaired_difference(*((one["label"], one["probability"]) for one in (outside, inside)))
            row = {"score": name, "breasts": split.partition("_")[2] or "all abnormal"}
            for key, split_name in (("internal", "internal_masked"), ("external", split)):
                row |= _columns(key, run.metrics[split_name]["auc"])
            rows.append(row | _columns("difference", asdict(difference)) | {"p": p, "n": len(outside)})
    return pd.DataFrame(rows)


def against_baselines(records: Mapping[str, Run]) -> pd.DataFrame:
    """Return AUC(network) - AUC(baseline) on the same breasts, Holm-corrected within each set of breasts."""
    parts = []
    for split in ("external_masses", "external"):
        frames = {name: scored(run, split) for name, run in records.items()}
        own = frames.pop(NETWORK)
        same = {name: one.set_index("sample_id").loc[own["sample_id"], "probability"] for name, one in frames.items()}
        table = paired_differences(own["label"], own["probability"], {k: v.to_numpy() for k, v in same.items()})
        table = table.rename(columns={"name": "baseline", "value": "difference"})
        parts.append(table.assign(breasts=split.partition("_")[2] or "all abnormal"))
    table = pd.concat(parts, ignore_index=True)
    table = table.rename(columns={"low": "difference_low", "high": "difference_high"})
    columns = ["breasts", "baseline", "difference", "difference_low", "difference_high", "p", "p_holm", "n"]
    return table[columns]


def without_pixels(records: Mapping[str, Run]) -> pd.DataFrame:
    """Return the AUC of the lesion's size and of the tissue alone: ``score breasts auc n``."""
    run, rows = records[NETWORK], []
    for split in ("internal_masked", "external_masses", "external"):
        frame = scored(run, split)
        scores = {"lesion size, larger first": frame["lesion_size"]}
        if split != "internal_masked":
            scores["tissue, denser first"] = frame["tissue"].map(TISSUES)
        for name, score in scores.items():
            auc = asdict(delong_interval(frame["label"].to_numpy(), score.to_numpy(float)))
            rows.append({"score": name, "breasts": split.replace("_", " ")} | _columns("auc", auc) | {"n": auc["n"]})
    return pd.DataFrame(rows)


def at_the_old_threshold(records: Mapping[str, Run]) -> pd.DataFrame:
    """Return decisions and calibration of every score and set: ``score breasts sensitivity ... brier``."""
    rows = []
    for name, run in records.items():
        for split in STAGES:
            found = {key: _columns(key, run.metrics[split][key]) for key in AT_THRESHOLD}
            row = {"score": name, "breasts": split.replace("_", " ")}
            rows.append(row | {key: value for one in found.values() for key, value in one.items()})
    return pd.DataFrame(rows)


def by_kind(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the AUC by tissue, fatty first, and by class of lesion: ``name level value low high n malignant``.

    ``frame`` are external predictions, :func:`scored`.
    """
    table = subgroups(frame, {"tissue": "tissue", "finding": "class"}, LEAST)
    group = table["name"].map({"tissue": 1, "class": 2}).fillna(0)
    place = [TISSUES.get(level, number) for number, level in enumerate(table["level"])]  # other levels keep their order
    return table.iloc[np.lexsort([place, group])].reset_index(drop=True)


def by_lesion_size(repeats: Sequence[pd.DataFrame], sizes: pd.Series) -> pd.DataFrame:
    """Return the AUC out of fold in thirds of lesion size: ``name level value low high n malignant``.

    ``repeats`` are predictions out of fold, ``sizes`` a size by ``sample_id``; breasts are compared within their fold.
    """
    size = repeats[0]["sample_id"].map(sizes).astype(float)
    if size.isna().any():
        raise InputError(f"lesion size: unknown for {int(size.isna().sum())} of {len(size)} breasts")
    third = pd.qcut(size, 3, labels=list(THIRDS)).astype(str)
    groups = {("all breasts", ""): np.ones(len(size), bool)}
    groups |= {("lesion size,", level): (third == level).to_numpy() for level in THIRDS}
    rows = []
    for (name, level), inside in groups.items():
        chosen = set(repeats[0].loc[inside, "sample_id"])
        parts = [one[one["sample_id"].isin(chosen)].reset_index(drop=True) for one in repeats]
        malignant = int(parts[0]["label"].sum())
        rows.append({"name": name, "level": level, **asdict(stratified_auc(parts)), "malignant": malignant})
    return pd.DataFrame(rows)


def by_film(runs: Sequence[Run]) -> pd.DataFrame:
    """Return a network's test predictions, mean logit over seeds, with what was measured on their films.

    ``orientation`` says whether the chest wall is on the side where a display would show it. ``beside`` splits the
    films at the median brightness beside the breast (labels, markers, edges).
    """
    frame = part_of(ensemble([run.predictions for run in runs]), "test")
    films = read_films(SAMPLE / "films.csv")
    usual = films["sample_id"].str.endswith("_LEFT") == films["chest_wall"].eq("left")
    films = films.assign(is_usual=usual).groupby("sample_id").agg(usual=("is_usual", "all"), beside=("beside", "mean"))
    films = films.reindex(frame["sample_id"]).reset_index(drop=True)
    more = films["beside"] > films["beside"].median()
    return frame.assign(
        orientation=films["usual"].map({True: "as displayed", False: "mirrored"}).to_numpy(),
        beside=more.map({True: "more", False: "less"}).to_numpy(),
    )


def film_difference(films: pd.DataFrame) -> tuple[Interval, float]:
    """Return AUC on mirrored films minus AUC on the others, with the p value, from :func:`by_film`."""
    mirrored = films["orientation"] == "mirrored"
    one, other = ((part["label"], part["probability"]) for part in (films[mirrored], films[~mirrored]))
    return unpaired_difference(one, other)


def transfer_answer(records: Mapping[str, Run]) -> str:
    """Return the answer of the chapter in three sentences, from the records."""
    loss, row = mass_loss(records), _masses_at_the_old_threshold(records)
    return (
        f"{transfer_in_words(records)} A loss is {_shown(loss)}. At the threshold chosen on CBIS-DDSM the network "
        f"calls {row['sensitivity']:.0%} of the malignant and {1 - row['specificity']:.0%} of the benign masses "
        f"malignant; its mean probability minus the share of malignant masses is {in_words(row, 'calibration')}."
    )


def transfer_in_words(records: Mapping[str, Run]) -> str:
    """Say in one sentence what the network reaches on the masses of the other collection."""
    loss = mass_loss(records)
    return (
        f"On {loss['n']} masses of {records[NETWORK].environment['data_set']}, films of another country and scanner, "
        f"the released network reaches an AUC of {in_words(loss, 'external', '')}; on CBIS-DDSM, with the same view "
        f"hidden, {loss['internal']:.3f}; the difference is {in_words(loss, 'difference')}."
    )


def transfer_in_short(records: Mapping[str, Run]) -> str:
    """Say the same in fewer words, for the opening of chapter 11, and what the old threshold does."""
    loss = mass_loss(records)
    return (
        f"On {loss['n']} masses of {records[NETWORK].environment['data_set']}, which has the MLO view alone, the "
        "released network's AUC differs from that on CBIS-DDSM with the CC view hidden by "
        f"{in_words(loss, 'difference')}: a loss is {_shown(loss)}. "
        f"A{threshold_in_words(records)[1:]}."
    )


def threshold_in_words(records: Mapping[str, Run]) -> str:
    """Say what the threshold of the training collection does to benign masses of the other one; no full stop."""
    row = _masses_at_the_old_threshold(records)
    called = f"{1 - row['specificity']:.0%} of the benign masses malignant"
    return f"at the threshold chosen on CBIS-DDSM the network calls {called}"


def _shown(loss: pd.Series) -> str:
    return "shown" if loss["difference_high"] < 0 else "neither shown nor excluded"


def _masses_at_the_old_threshold(records: Mapping[str, Run]) -> pd.Series:
    return at_the_old_threshold({NETWORK: records[NETWORK]}).set_index("breasts").loc["external masses"]


def mass_loss(records: Mapping[str, Run]) -> pd.Series:
    """Return the row of :func:`losses` of the network on the masses of the other collection."""
    table = losses(records)
    return table[(table["score"] == NETWORK) & (table["breasts"] == "masses")].iloc[0]


def _columns(name: str, estimate: Mapping) -> dict[str, float]:
    return {name: estimate["value"], f"{name}_low": estimate["low"], f"{name}_high": estimate["high"]}
