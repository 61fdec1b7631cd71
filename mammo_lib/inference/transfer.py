"""A network, or a baseline, scored on a collection that it was not trained on: one record, with scores but no pixels.

Nothing is tuned: threshold and temperature are those that were chosen on CBIS-DDSM (``book/protocol-external.md``). The
predictions of a record have these splits:

| split | breasts |
|---|---|
| external | those of the collection with a lesion, and with its position where the collection marks lesions |
| internal | CBIS-DDSM breasts that were not trained on, with every view |
| internal_masked | the same breasts, with the views masked that the collection does not have |

If a collection gives only the readers' BI-RADS category, no breast has a label, and the metrics measure agreement with
the readers (BI-RADS 4 or more), under the name ``agreement_with_readers``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..config import RunConfig, fingerprint
from ..data.cohort import assign_folds
from ..data.collection import Collection
from ..data.external import OtherCollection
from ..data.external.adapter import CORNERS, SPLIT
from ..data.images import image_shape
from ..data.loader import UNKNOWN, BreastDataset
from ..data.memo import remember
from ..data.prepare import Prepared
from ..errors import InputError
from ..files import file_hash
from ..models.network import Network, load_best, predict
from ..runs.predictions import as_predictions, with_choices
from ..runs.protocols import PROTOCOL_EXTERNAL, protocol_elsewhere
from ..runs.records import EXTERNAL, Run, find_run, start_run
from ..statistics import evaluate_calibration, evaluate_predictions, fit_temperature, youden_threshold
from ..training.baselines import fit_baseline
from .provenance import HELD_OUT, identity_of, same_network, training_set

INTERNAL, MASKED = "internal", "internal_masked"
MASSES, AGREEMENT = f"{SPLIT}_masses", "agreement_with_readers"
DESCRIBED = ("lesion_type", "finding", "tissue", "n_lesions", "is_suspicious")


def scored_breasts(other: OtherCollection) -> pd.DataFrame:
    """Return the breasts of a collection that are scored: with a lesion, and with a label or the readers' category.

    Raises
    ------
    InputError
        There is none.
    """
    breasts = other.breasts
    known = breasts["label" if other.about.truth == "pathology" else "is_suspicious"].notna()
    has_position = breasts["has_box"] | (not breasts["has_box"].any())
    chosen = breasts[known & has_position & (breasts["lesion_type"] != "none")]
    if chosen.empty:
        what = "lesion (is their table or folder there?)" if known.any() else "label"
        raise InputError(
            f"{other.root}: no breast of {other.about.name} has a {what}; give the folder of the whole copy"
        )
    return chosen.reset_index(drop=True)


def score_network(
    run: Run, other: OtherCollection, reference: Collection | None = None, *, allow_missing: bool = False,
    progress: bool = False,
) -> Run:  # fmt: skip
    """Return the record of a trained network on another collection; a finished record is read, not made again.

    ``reference`` is the data set that the network was trained on. If it is given, the held-out breasts are scored again
    with those views masked that the collection lacks.

    Raises
    ------
    InputError
        The run has no weights here, or is not the network of its record; no breast can be scored; or an image is
        missing or cannot be decoded.
    """
    run = same_network(run)
    config = _config(run.config, other, allow_missing)
    prepared = other.prepare(scored_breasts(other), *config.inputs)
    trained = reference.prepare("train", *run.config.inputs) if reference else None
    sources = [identity_of(run), trained and trained.fingerprint]
    facts = {"network": run.name, "trained_on": training_set(run), "checkpoint": file_hash(run.checkpoint)}
    record = _record(config, other, prepared, sources, protocol_elsewhere(run.config, other.about.key), **facts)
    if record.is_finished:
        return record
    network = load_best(run)
    parts = {SPLIT: _described(_score(network, prepared, prepared.cohort, progress=progress), prepared)}
    held_out = run.predictions[run.predictions["split"].isin(HELD_OUT)]
    parts[INTERNAL] = held_out.drop(columns=["threshold", "temperature"])
    if trained:
        cohort = _same_breasts(trained, held_out, reference)
        hidden = [view for view in config.model.views if view not in seen_views(prepared)]
        parts[MASKED] = _sized(_score(network, trained, cohort, hidden, progress=progress), trained)
    return _finish(record, {split: with_choices(frame, *run.choices) for split, frame in parts.items()}, other)


def score_baseline(
    name: str, like: RunConfig, other: OtherCollection, reference: Collection, *, allow_missing: bool = False
) -> Run:
    """Return the record of a baseline, fitted on all training breasts of ``reference`` from the views that exist here.

    ``like`` is the config of the network beside it, whose preparation, folds and seed are used. Threshold and
    temperature come from predictions out of fold.

    Raises
    ------
    InputError
        No breast can be scored, or an image is missing or cannot be decoded.
    """
    prepared = other.prepare(scored_breasts(other), *_config(like, other, allow_missing).inputs)
    config = _config(like, other, allow_missing, baseline=name, views=seen_views(prepared))
    trained = reference.prepare("train", *config.inputs)
    record = _record(config, other, prepared, [trained.fingerprint], PROTOCOL_EXTERNAL, trained_on=reference.name)
    if record.is_finished:
        return record
    masked = _out_of_fold(config, reference, trained)
    both = _out_of_fold(config, reference, reference.prepare("train", *like.inputs))
    train = trained.cohort.query("not is_extra").reset_index(drop=True)
    fitted = fit_baseline(name, reference.table, trained, train, config.seed)
    external = as_predictions(prepared.cohort, fitted(prepared, prepared.cohort))
    choices = _choices(masked)
    parts = {
        SPLIT: with_choices(_described(external, prepared), *choices),
        INTERNAL: with_choices(both, *_choices(both)),
        MASKED: with_choices(_sized(masked, trained), *choices),
    }
    return _finish(record, parts, other)


def seen_views(prepared: Prepared) -> tuple[str, ...]:
    """Return the views of which a prepared cohort has at least one image."""
    return tuple(view for view in prepared.views if (prepared.index["view"] == view).any())


def lesion_sizes(prepared: Prepared) -> pd.Series:
    """Return the longer side of the lesion's box over the longer side of its film, by breast; the largest of its views.

    The box is the one that the crop is cut around, with its margin; both sides are measured in square pixels. Crops
    that are separate files have no box and no size.
    """
    crops = prepared.index[(prepared.index["stream"] == "crop") & prepared.index["x0"].notna()]
    shapes = remember("film size", map(Path, crops["path"]), image_shape)
    film = np.array([shapes[Path(path)] for path in crops["path"]], float).reshape(-1, 2)
    aspect, box = crops["aspect"].to_numpy(float), {name: crops[name].to_numpy(float) for name in CORNERS}
    sides = np.maximum((box["y1"] - box["y0"]) * aspect, box["x1"] - box["x0"])
    return pd.Series(sides / np.maximum(film[:, 0] * aspect, film[:, 1]), crops["sample_id"]).groupby(level=0).max()


def _config(
    config: RunConfig, other: OtherCollection, allow_missing: bool, baseline: str | None = None,
    views: Sequence[str] | None = None,
) -> RunConfig:  # fmt: skip
    """Return the config of a record: that of the network, or of a baseline beside it, under the collection's name."""
    changes: dict = {"experiment": f"{EXTERNAL}{other.about.key}", "baseline": baseline}
    data = {"allow_missing": allow_missing} | ({"fold": "each"} if baseline else {})
    changes["data"] = config.data.model_copy(update=data)
    if views:
        changes["model"] = config.model.model_copy(update={"views": tuple(views)})
    return config.model_copy(update=changes)


def _record(
    config: RunConfig, other: OtherCollection, prepared: Prepared, sources: list, protocol: Path, **facts: object
) -> Run:
    """Return the record for these breasts and this network: the finished one, else a started one."""
    data_hash = fingerprint([prepared.fingerprint, *sources])
    about, left_out = other.about, other.left_out["reason"].value_counts()
    facts |= {"citation": about.citation, "licence": about.licence, "truth": about.truth}
    facts |= {"left_out": {reason: int(n) for reason, n in left_out.items()}, "not_read": len(prepared.problems)}
    found = find_run(config, data_hash)
    return found or start_run(config, data_hash, data_set=about.name, protocol=protocol, **facts)


def _score(
    network: Network, prepared: Prepared, cohort: pd.DataFrame, hidden: Sequence[str] = (), *, progress: bool = False
) -> pd.DataFrame:
    """Return a network's predictions for breasts, with some views masked."""
    dataset = BreastDataset(prepared, cohort.assign(label=cohort["label"].fillna(UNKNOWN).astype(int)))
    loader = DataLoader(dataset, batch_size=network.config.train.batch_size)
    batches = tqdm(loader, desc="scoring", unit="batch", disable=not progress, dynamic_ncols=True)
    columns = [prepared.views.index(view) for view in hidden]
    return predict(network, (_without_views(batch, columns) for batch in batches), cohort)


def _same_breasts(prepared: Prepared, scored: pd.DataFrame, reference: Collection) -> pd.DataFrame:
    """Return the cohort's rows of breasts that a record has scored, in its order."""
    cohort = prepared.cohort.set_index("sample_id", drop=False)
    if missing := sorted(set(scored["sample_id"]) - set(cohort.index)):
        raise InputError(
            f"{reference.root}: {len(missing)} of the {len(scored)} breasts that this network held out are not here, "
            f"such as {missing[0]}; give the data that it was trained on"
        )
    return cohort.loc[scored["sample_id"]].reset_index(drop=True)


def _without_views(batch: dict, columns: list[int]) -> dict:
    present = {stream: one.clone() for stream, one in batch["present"].items()}
    for one in present.values():
        one[:, columns] = False
    return batch | {"present": present}


def _out_of_fold(config: RunConfig, reference: Collection, prepared: Prepared) -> pd.DataFrame:
    """Return a baseline's predictions of training breasts, each fitted on the other folds."""
    cohort = prepared.cohort.query("not is_extra").reset_index(drop=True)
    folds = assign_folds(cohort, config.data.n_folds, config.data.fold_seed).to_numpy()
    logit = np.full(len(cohort), np.nan)
    for fold in range(config.data.n_folds):
        train, out = cohort[folds != fold], cohort[folds == fold]
        fitted = fit_baseline(config.baseline, reference.table, prepared, train, config.seed)
        logit[folds == fold] = fitted(prepared, out)
    return as_predictions(cohort, logit)


def _choices(frame: pd.DataFrame) -> tuple[float, float]:
    """Return the threshold and the temperature chosen on out-of-fold predictions."""
    label = frame["label"].to_numpy()
    return youden_threshold(label, frame["probability"].to_numpy()), fit_temperature(label, frame["logit"].to_numpy())


def _described(frame: pd.DataFrame, prepared: Prepared) -> pd.DataFrame:
    """Add what the collection states about the lesions, and the names of the images."""
    cohort = prepared.cohort
    images = {f"image_{view}": cohort[f"whole_{view}"].map(_stem, na_action="ignore") for view in seen_views(prepared)}
    return _sized(frame.assign(**{name: cohort[name].to_numpy() for name in DESCRIBED}, **images), prepared)


def _sized(frame: pd.DataFrame, prepared: Prepared) -> pd.DataFrame:
    return frame.assign(lesion_size=frame["sample_id"].map(lesion_sizes(prepared)).astype(float))


def _finish(record: Run, parts: dict[str, pd.DataFrame], other: OtherCollection) -> Run:
    """Write the predictions and the metrics of every split; masses are also evaluated separately."""
    parts = {split: frame.assign(split=split) for split, frame in parts.items()}
    scored = {split: frame for split, frame in parts.items() if split != SPLIT}
    external = parts[SPLIT]
    if other.about.truth == "pathology":
        masses = external[external["lesion_type"] == "mass"]
        scored |= {SPLIT: external} | ({MASSES: masses} if len(masses) else {})
    else:
        scored[AGREEMENT] = external.assign(label=external["is_suspicious"])
    metrics = {}
    for split, frame in scored.items():
        known = frame.assign(label=frame["label"].astype(int))
        metrics[split] = evaluate_predictions(known) | evaluate_calibration(known)
    with record.held():
        if not record.is_finished:
            record.finish(pd.concat(parts.values(), ignore_index=True), metrics)
    return record


def _stem(path: str) -> str:
    return Path(path).stem
