"""Baselines for comparison with a network, fitted on the same training breasts.

| name | input |
|---|---|
| majority | nothing: the share of malignant training breasts |
| birads | the readers' BI-RADS assessment |
| metadata | assessment, subtlety, density, and the descriptions of shape and margin in the tables |
| crop_geometry | height, width and area of the crops, and the position of the box if it is known |
| frozen_features | the pixels of both streams, through a frozen EfficientNet-Lite0 trained on ImageNet |
| frozen_stages | the same, through its first stages only, which the ``lite`` backbone is built on |

All but the first are logistic regressions on standardised features; the penalty is chosen by cross-validation over
training patients. A baseline's run has no checkpoint: it is fitted again, in seconds, when the test set is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from ..config import ReaderWords, RunConfig
from ..data.cohort import split_cohort
from ..data.collection import Collection
from ..data.prepare import Prepared, load_pixels
from ..data.views import VIEWS, read_view
from ..files import read_array, write_array
from ..models.lite import imagenet_stages, load_lite, normalise
from .readers import fit_logistic, metadata

BATCH = 32


def fit_baseline(
    name: str,
    table: pd.DataFrame,
    prepared: Prepared,
    train: pd.DataFrame,
    seed: int,
    reader_words: ReaderWords = "own_split",
) -> Callable[[Prepared, pd.DataFrame], np.ndarray]:
    """Fit a baseline on training breasts; return a function from prepared breasts to logits of malignancy."""
    train = train.query("not is_extra")  # nearly all extra breasts lack a view, and with it half of their features
    if name == "majority":
        share = train["label"].mean()
        return lambda pixels, cohort: np.full(len(cohort), np.log(share / (1 - share)))
    features = partial(read_metadata, words=reader_words) if name == "metadata" else FEATURES[name]
    model = fit_logistic(features(table, prepared, train), train, seed)
    return lambda pixels, cohort: model.decision_function(features(table, pixels, cohort).to_numpy(float))


def baseline_of(config: RunConfig, collection: Collection) -> Callable[[Prepared, pd.DataFrame], np.ndarray]:
    """Fit a run's baseline on its training breasts (:func:`fit_baseline`)."""
    prepared = collection.prepare("train", *config.inputs)
    train = split_cohort(config.data, prepared.cohort)["train"]
    return fit_baseline(config.baseline, collection.table, prepared, train, config.seed, config.data.reader_words)


def readers(table: pd.DataFrame, prepared: Prepared, cohort: pd.DataFrame) -> pd.DataFrame:
    """Return the assessment as stored, (n, 1); 0 is "incomplete" and counts as the lowest."""
    return cohort[["assessment"]].astype(float)


def read_metadata(
    table: pd.DataFrame, prepared: Prepared, cohort: pd.DataFrame, words: ReaderWords = "own_split"
) -> pd.DataFrame:
    """Return readings and descriptions of the tables (:func:`mammo_lib.training.readers.metadata`)."""
    return metadata(table, cohort, words)


def crop_geometry(table: pd.DataFrame, prepared: Prepared, cohort: pd.DataFrame) -> pd.DataFrame:
    """Return per view the logarithms of the crop's sides, in pixels of the file, and its box's centre, if known."""
    index = prepared.index
    crops = index[(index["stream"] == "crop") & index["sample_id"].isin(cohort["sample_id"])]
    rows = {}
    for row in crops.itertuples():
        height, width = (row.y1 - row.y0, row.x1 - row.x0) if row.derived else read_view(row).shape
        centre = (row.x0 + row.x1) / 2, (row.y0 + row.y1) / 2
        rows[row.sample_id, row.view] = [np.log(height * row.aspect), np.log(width), *centre]
    missing = [np.nan] * 4
    values = [[x for view in VIEWS for x in rows.get((name, view), missing)] for name in cohort["sample_id"]]
    return pd.DataFrame(values)


def frozen_features(table: pd.DataFrame, prepared: Prepared, cohort: pd.DataFrame) -> pd.DataFrame:
    """Return Lite0's 1,280 pooled features of every stream and view, concatenated; missing views are zero."""
    values = _pooled_maps(prepared, cohort, "lite0", lambda lite0, x: lite0.extract_features(x))
    return pd.DataFrame(np.nan_to_num(values).reshape(len(cohort), -1))


def frozen_stages(table: pd.DataFrame, prepared: Prepared, cohort: pd.DataFrame) -> pd.DataFrame:
    """Return the 112 pooled features at stride 16 on which the ``lite`` backbone is built, averaged over views.

    A stream without a view is NaN; it is replaced by the mean over the fitted breasts.
    """
    values = _pooled_maps(prepared, cohort, "lite0-stride16", lambda lite0, x: imagenet_stages(lite0)(x))
    seen = np.isfinite(values).sum(axis=2, dtype=np.float32)
    mean = np.divide(np.nansum(values, axis=2), seen, out=np.full_like(seen, np.nan), where=seen > 0)
    return pd.DataFrame(mean.reshape(len(cohort), -1))


def _pooled_maps(prepared: Prepared, cohort: pd.DataFrame, name: str, last_map: Callable) -> np.ndarray:
    """Return (breasts, streams, views, features), NaN where a view is missing; kept beside the prepared pixels."""
    index = prepared.index[prepared.index["sample_id"].isin(cohort["sample_id"])]
    targets = {key: prepared.folder / f"{key}.{name}.npy" for key in index["key"]}
    waiting = [key for key, path in targets.items() if not path.is_file()]
    if waiting:
        lite0 = load_lite()
        starts = range(0, len(waiting), BATCH)
        for start in tqdm(starts, desc="ImageNet features", unit="batch", dynamic_ncols=True):
            keys = waiting[start : start + BATCH]
            pixels = torch.from_numpy(np.stack([load_pixels(prepared.path(key)) for key in keys]))
            with torch.inference_mode():
                pooled = last_map(lite0, normalise(pixels[:, None])).mean((2, 3)).numpy()
            for key, values in zip(keys, pooled, strict=True):
                write_array(targets[key], values)
    found = {key: read_array(path) for key, path in targets.items()}
    keys = dict(zip(zip(index["sample_id"], index["stream"], index["view"], strict=True), index["key"], strict=True))
    nothing = np.full_like(next(iter(found.values())), np.nan)
    streams = sorted(prepared.streams)
    return np.array(
        [
            [[found.get(keys.get((name, stream, view)), nothing) for view in VIEWS] for stream in streams]
            for name in cohort["sample_id"]
        ]
    )


FEATURES = {
    "birads": readers, "metadata": read_metadata, "crop_geometry": crop_geometry,
    "frozen_features": frozen_features, "frozen_stages": frozen_stages,
}  # fmt: skip
