"""Decode each image once into a cache of network-sized pixels.

One file per view and stream, named by a hash of the source file's content, the box and the
settings, so that the cache can serve any cohort and never goes stale. Files appear
whole or not at all; a killed preparation goes on where it was.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..config import DataConfig, fingerprint
from ..errors import InputError
from ..runs import file_hash
from .images import breast_mask, faces_right, fit_square
from .sources import ImageSource

VERSION = 1  # raise it when a change here moves pixels
FULL_SCALE = 65535


@dataclass(frozen=True)
class Prepared:
    """The pixels of a cohort as the network sees them.

    ``index`` has one row per existing view and stream: ``breast_id view stream key derived``; ``cohort`` one row per
    breast.
    """

    folder: Path
    cohort: pd.DataFrame
    index: pd.DataFrame

    @property
    def fingerprint(self) -> str:
        """SHA-256 over who is in the cohort, with which label, and what the pixels were made from."""
        breasts = self.cohort[["breast_id", "label"]].astype(str).to_numpy().tolist()
        return fingerprint([breasts, self.index[["breast_id", "view", "stream", "key"]].to_numpy().tolist()])

    def path(self, key: str) -> Path:
        """Return the file of one prepared view."""
        return self.folder / f"{key}.npy"


def load_pixels(path: Path) -> np.ndarray:
    """Return one prepared view, float32 (size, size) in [0, 1]."""
    return np.load(path).astype(np.float32) / FULL_SCALE


def prepare(
    cohort: pd.DataFrame,
    source: ImageSource,
    data: DataConfig,
    views,
    streams,
    cache: Path,
    *,
    workers: int | None = None,
) -> Prepared:
    """Decode what the cache lacks of a cohort's views.

    Raises
    ------
    InputError
        A file is missing or cannot be decoded, or the cache cannot be written; files prepared until then stay in the
        cache. Or the cohort has several rows a breast.
    """
    _check_one_row_per_breast(cohort)
    located = source.locate(cohort)
    located = located[located["view"].isin(views) & (located["status"] != "absent")]
    _check_found(located)
    _make_folder(cache)
    hashes = _hash_files(sorted(set(located["path"])))
    settings = [VERSION, data.image_size, data.mask_breast, data.orient]
    whole = located[located["stream"] == "whole"].set_index(["breast_id", "view"])["path"].map(hashes)
    films = [whole[row.breast_id, row.view] for row in located.itertuples()]
    located = located.assign(
        key=[_key(row, hashes[row.path], film, settings) for row, film in zip(located.itertuples(), films, strict=True)]
    )
    prepared = Prepared(cache, cohort, located[located["stream"].isin(streams)].reset_index(drop=True))
    _decode_missing(prepared, located, source, data, workers or os.cpu_count() or 1)
    return prepared


def prepare_view(source: ImageSource, whole, crop, data: DataConfig) -> dict[str, np.ndarray]:
    """Return ``{stream: (size, size)}`` of one view; the crop is turned the way the whole film says."""
    film = source.read(whole)
    mask = breast_mask(film)
    crop_pixels = _turn(source.read(crop), mask, data)
    pixels = {"whole": prepared_film(film, data, mask), "crop": crop_pixels}
    return {stream: fit_square(image, data.image_size) for stream, image in pixels.items()}


def prepared_film(film: np.ndarray, data: DataConfig, mask: np.ndarray | None = None) -> np.ndarray:
    """Return a whole film as the config wants it: everything beside the breast blanked, the chest wall on the left."""
    mask = breast_mask(film) if mask is None else mask
    return _turn(np.where(mask, film, 0) if data.mask_breast else film, mask, data)


def _turn(image: np.ndarray, mask: np.ndarray, data: DataConfig) -> np.ndarray:
    return image[:, ::-1] if data.orient and faces_right(mask) else image


def _check_one_row_per_breast(cohort: pd.DataFrame) -> None:
    repeated = cohort["breast_id"][cohort["breast_id"].duplicated()]
    if len(repeated):
        raise InputError(
            f"the cohort has several rows of breast {repeated.iloc[0]}, and pixels are prepared per breast; "
            "choose a data.definition other than 'lesion'"
        )


def _make_folder(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{cache}: cannot be made ({error.strerror}); the cache needs a folder to write to") from None


def _check_found(located: pd.DataFrame) -> None:
    missing = located[located["status"] != "found"]
    if len(missing):
        one = missing.iloc[0]
        raise InputError(
            f"{one['path']}: {one['status']} ({one['breast_id']} {one['view']} {one['stream']}; "
            f"{len(missing)} of {len(located)} views in all); complete the data folder"
        )


def _hash_files(paths: list[str]) -> dict[str, str]:
    with ThreadPoolExecutor() as pool:
        return dict(zip(paths, pool.map(lambda path: file_hash(Path(path)), paths), strict=True))


def _key(row, content: str, film: str, settings: list) -> str:
    box = [None if np.isnan(v) else round(v, 4) for v in (row.x0, row.y0, row.x1, row.y1)]
    return fingerprint([content, film, row.stream, box, round(row.aspect, 6), settings])[:32]


def _decode_missing(prepared: Prepared, located: pd.DataFrame, source, data: DataConfig, workers: int) -> None:
    """Decode in threads, view by view; whichever files of a view are there already are not written again."""
    wanted = prepared.index.assign(is_there=[prepared.path(key).is_file() for key in prepared.index["key"]])
    waiting = wanted.loc[~wanted["is_there"], ["breast_id", "view"]].drop_duplicates()
    if waiting.empty:
        return
    rows = {(row.breast_id, row.view, row.stream): row for row in located.itertuples()}

    def decode(view: tuple[str, str]) -> None:
        whole, crop = rows[(*view, "whole")], rows[(*view, "crop")]
        pixels = prepare_view(source, whole, crop, data)
        for row in (whole, crop):
            _write(prepared.path(row.key), pixels[row.stream])

    todo = list(waiting.itertuples(index=False, name=None))
    with ThreadPoolExecutor(workers) as pool:
        try:
            for _ in tqdm(pool.map(decode, todo), total=len(todo), desc="preparing", unit="view", dynamic_ncols=True):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write(path: Path, pixels: np.ndarray) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.npy")
    try:
        np.save(partial, np.round(pixels * FULL_SCALE).astype(np.uint16))
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be written ({error}); free some space there, then go on") from None
    finally:
        partial.unlink(missing_ok=True)
