"""Decode each image once into a cache of network-sized pixels.

There is one file per view and stream, named by a hash of the source files' content, the box and the settings, so the
cache serves any cohort and never goes stale. Files are written atomically, and a killed preparation resumes. The work
is divided by view, because a crop takes its orientation from its film.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..config import DataConfig, fingerprint
from ..errors import InputError, writing_to
from ..files import file_hash, read_array, write_array
from ..runs.executor import CRASHED, IN_FLIGHT, WorkerDied, as_done, in_child, open_executor
from .dicom import refusing
from .images import breast_mask, faces_right, fit_into, read_image
from .memo import remember
from .views import STREAMS, VIEWS, ImageSource, read_view, with_context

VERSION = 1  # raise it when a change here moves pixels
FULL_SCALE = 65535
PROBLEMS = "problems.csv"
PROBE = 4  # views that are prepared before the remaining time is estimated
POOL_START_S = 8.0
STALE_S = 600.0


@dataclass(frozen=True)
class Prepared:
    """The prepared pixels of a cohort.

    ``index`` has one row per existing view and stream: ``sample_id view stream key derived``; ``cohort`` one row per
    sample; ``problems`` the located rows whose files are missing or cannot be decoded (none unless they were allowed);
    ``views`` and ``streams`` are those requested, ``size`` is height and width.
    """

    folder: Path
    cohort: pd.DataFrame
    index: pd.DataFrame
    problems: pd.DataFrame
    views: tuple[str, ...] = VIEWS
    streams: tuple[str, ...] = STREAMS
    size: tuple[int, int] = (224, 224)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the cohort's breasts and labels and of the sources of the pixels."""
        samples = self.cohort[["sample_id", "label"]].astype(str).to_numpy().tolist()
        return fingerprint([samples, self.index[["sample_id", "view", "stream", "key"]].to_numpy().tolist()])

    def path(self, key: str) -> Path:
        """Return the file of one prepared view."""
        return self.folder / f"{key}.npy"


@dataclass(frozen=True)
class ViewTask:
    """The input of a worker for one view: the located film and crop, and the destination of their pixels.

    ``crop`` is None in collections without lesion boxes.
    """

    whole: object
    crop: object | None
    data: DataConfig
    folder: Path

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that this view has."""
        return ("whole",) if self.crop is None else ("crop", "whole")

    def target(self, stream: str) -> Path:
        """Return the file of a stream."""
        return self.folder / f"{getattr(self, stream).key}.npy"


def load_pixels(path: Path) -> np.ndarray:
    """Return one prepared view, float32 (height, width) in [0, 1].

    Raises
    ------
    InputError
        The file is missing or damaged.
    """
    return read_array(path).astype(np.float32) / FULL_SCALE


def prepare(
    cohort: pd.DataFrame,
    source: ImageSource,
    data: DataConfig,
    views=VIEWS,
    streams=STREAMS,
    *,
    cache: Path,
    workers: int | None = None,
    cluster: str | None = None,
) -> Prepared:
    """Decode the views of a cohort that are not in the cache.

    Raises
    ------
    InputError
        A file is missing or cannot be decoded and ``data.allow_missing`` is not set (all such files are listed in the
        cache's ``problems.csv``), nothing is left, or the cache cannot be written. Prepared files are kept.
    """
    _make_folder(cache)
    located = _located(cohort, source, data, views)
    tasks = _tasks(located, data, cache)
    waiting = [task for task in tasks if not all(task.target(s).is_file() for s in task.streams if s in streams)]
    failures = _decode(waiting, workers, cluster)
    return _collect(cohort, located, views, streams, cache, failures, data)


def data_hash(
    cohort: pd.DataFrame, source: ImageSource, data: DataConfig, views, streams, *, cache: Path
) -> str | None:
    """Return the fingerprint of what :func:`prepare` returns; no image is decoded.

    None if an image is missing or may be left out, since only decoding shows what remains. An image that cannot be
    decoded is not an error here: no record has its hash.
    """
    located = _located(cohort, source, data, views)
    if data.allow_missing or (located["status"] != "found").any():
        return None
    return _collect(cohort, located, views, streams, cache, {}, data).fingerprint


def _located(cohort: pd.DataFrame, source: ImageSource, data: DataConfig, views) -> pd.DataFrame:
    """Return the existing views of a cohort, each with the name of its file in the cache."""
    located = source.locate(cohort)
    return _with_keys(located[located["view"].isin(views) & (located["status"] != "absent")], data)


def prepare_view(
    whole, crop, data: DataConfig, decoded: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Return ``{stream: (height, width)}`` of one view; the crop, if any, takes its orientation from the film.

    ``decoded`` contains, by path, the pixels of files that are already decoded. No file is decoded twice.
    """
    decoded = dict(decoded or {})
    for row in filter(None, (whole, crop)):
        if row.path not in decoded:
            decoded[row.path] = read_image(row.path)
    film = read_view(whole, decoded[whole.path])
    mask = breast_mask(film) if data.mask_breast or data.orient else None
    pixels = {"whole": prepared_film(film, data, mask)}
    if crop is not None:
        lesion = with_context(crop, data.crop_context)
        pixels["crop"] = _turn(read_view(lesion, decoded[crop.path]), mask, data)
    return {stream: fit_into(image, data.image_size) for stream, image in pixels.items()}


def prepared_film(film: np.ndarray, data: DataConfig, mask: np.ndarray | None = None) -> np.ndarray:
    """Return a whole film as the config requires: everything outside the breast blanked, the chest wall on the left."""
    if mask is None and (data.mask_breast or data.orient):
        mask = breast_mask(film)
    return _turn(np.where(mask, film, 0) if data.mask_breast else film, mask, data)


def chest_walls(films: pd.DataFrame) -> pd.Series:
    """Return the side of the chest wall in located whole films, ``left`` or ``right``, from the pixels."""
    seen = remember(f"chest walls, {VERSION}", [Path(path) for path in films["path"]], _chest_wall)
    return films["path"].map(lambda path: seen[Path(path)]).rename("chest_wall")


def _chest_wall(path: Path) -> str:
    return "right" if faces_right(breast_mask(read_image(path))) else "left"


def _turn(image: np.ndarray, mask: np.ndarray | None, data: DataConfig) -> np.ndarray:
    return image[:, ::-1] if data.orient and faces_right(mask) else image


def _make_folder(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        probe = cache / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
        for partial in cache.glob(".*.npy.*"):  # left by killed processes: a live one finishes in seconds
            with suppress(FileNotFoundError):  # another process moved or removed it meanwhile
                if time.time() - partial.stat().st_mtime > STALE_S:
                    partial.unlink()
    except OSError as error:
        raise InputError(
            f"{cache}: cannot be written ({error.strerror}); the cache needs a folder to write to"
        ) from None


def _with_keys(located: pd.DataFrame, data: DataConfig) -> pd.DataFrame:
    """Name the cache file of each located row by what its pixels are made from."""
    readable = located["status"] == "found"
    names = located.loc[readable, "path"].unique()  # as the source writes them: Path would make a.png of ./a.png
    known = remember("hashing", [Path(name) for name in names], _content_hash)
    hashes = {name: known[Path(name)] for name in names}
    height, width = data.image_size
    side = height if height == width else [height, width]  # one number for a square keeps older cache names valid
    settings = [VERSION, side, data.mask_breast, data.orient]
    wholes = located[readable & (located["stream"] == "whole")]
    film_of = dict(zip(zip(wholes["sample_id"], wholes["view"], strict=True), wholes["path"].map(hashes), strict=True))
    keys = [
        _key(
            row, hashes[row.path] if row.status == "found" else "", film_of.get((row.sample_id, row.view), ""),
            [*settings, data.crop_context] if row.derived and data.crop_context else settings,
        )
        for row in located.itertuples()
    ]  # fmt: skip
    return located.assign(key=keys)


def _content_hash(path: Path) -> str:
    with refusing(path, "cannot be read", "give this user access, or download the file again"):
        return file_hash(path)


def _key(row, content: str, film: str, settings: list) -> str:
    box = [None if np.isnan(v) else round(v, 4) for v in (row.x0, row.y0, row.x1, row.y1)]
    return fingerprint([content, film, row.stream, box, round(row.aspect, 6), settings])[:32]


def _tasks(located: pd.DataFrame, data: DataConfig, folder: Path) -> list[ViewTask]:
    """Return one task per view whose files all exist: film and crop, or only the film in a collection without boxes."""
    views: dict[tuple[str, str], dict] = {}
    for row in plain_rows(located):
        views.setdefault((row.sample_id, row.view), {})[row.stream] = row
    return [
        ViewTask(view["whole"], view.get("crop"), data, folder)
        for view in views.values()
        if all(row.status == "found" for row in view.values())
    ]


def plain_rows(frame: pd.DataFrame):
    """Rows as objects that can be sent to another process."""
    from types import SimpleNamespace

    for row in frame.to_dict("records"):
        yield SimpleNamespace(**row)


def _decode(tasks: list[ViewTask], workers: int | None, cluster: str | None) -> dict[str, str]:
    """Prepare the views; return ``{path: problem}`` of the files that could not be decoded."""
    if not tasks:
        return {}
    failures, is_free = {}, workers is None and cluster is None
    first = tasks[:PROBE] if is_free else []
    with tqdm(total=len(tasks), desc="preparing", unit="view", dynamic_ncols=True) as bar:
        for failed in map(_prepare_and_write, first):
            failures |= failed
            bar.update()
        seconds_left = bar.format_dict["elapsed"] / PROBE * len(tasks)
        # Processes take seconds to start: a short list is finished here before they are ready.
        workers = 1 if is_free and seconds_left < POOL_START_S else workers
        for failed in _in_pool(tasks[len(first) :], workers, cluster):
            failures |= failed
            bar.update()
    return failures


def _in_pool(tasks: list[ViewTask], workers: int | None, cluster: str | None) -> Iterator[dict[str, str]]:
    """Yield the result of each view. If a worker dies, the views that may have caused it are retried one by one."""
    while tasks:
        try:
            with open_executor(workers, cluster) as (executor, n):
                yield from as_done(executor, n, _prepare_and_write, tasks)
            return
        except WorkerDied:
            waiting = [task for task in tasks if not all(task.target(s).is_file() for s in task.streams)]
            suspects, tasks = waiting[: IN_FLIGHT * n], waiting[IN_FLIGHT * n :]
            yield from map(_alone, suspects)


def _alone(task: ViewTask) -> dict[str, str]:
    """Prepare a view in a separate process, because its decoder may end the process."""
    try:
        return in_child(_prepare_and_write, task)
    except WorkerDied:
        return {task.whole.path: CRASHED}


def _prepare_and_write(task: ViewTask) -> dict[str, str]:
    """Carry out one task; return nothing on success, else which file is unreadable and why."""
    try:
        pixels = prepare_view(task.whole, task.crop, task.data)
    except InputError as error:
        rows = [getattr(task, stream) for stream in task.streams]
        path = next((row.path for row in rows if str(error).startswith(row.path)), task.whole.path)
        return {path: str(error).removeprefix(f"{path}: ")}
    for stream, image in pixels.items():
        _write(task.target(stream), image)
    return {}


def _write(path: Path, pixels: np.ndarray) -> None:
    with writing_to(path.parent, "free some space there, then run the command again"):
        write_array(path, np.round(pixels * FULL_SCALE).astype(np.uint16))


def _collect(cohort, located, views, streams, cache: Path, failures: dict[str, str], data: DataConfig) -> Prepared:
    """Join what is ready with the cohort; report what is not."""
    failed = located["path"].isin(list(failures)) & (located["status"] == "found")
    located = located.assign(
        status=located["status"].mask(failed, "undecodable"),
        problem=located["problem"].mask(failed, located["path"].map(failures)),
    )
    problems = located[located["status"] != "found"]
    # A view is used completely or not at all, because the crop takes its orientation from the film.
    broken = set(zip(problems["sample_id"], problems["view"], strict=True))
    in_broken = [(row.sample_id, row.view) in broken for row in located.itertuples()]
    index = located[~np.array(in_broken, bool) & located["stream"].isin(streams)].reset_index(drop=True)
    report = cache / PROBLEMS
    if len(problems):
        problems[["sample_id", "view", "stream", "status", "problem", "path"]].to_csv(report, index=False)
    if len(problems) and not data.allow_missing:
        one = problems.iloc[0]
        raise InputError(
            f"{one['path']}: {one['problem']} ({one['sample_id']} {one['view']} {one['stream']}; "
            f"{len(problems)} of {len(located)} images in all, listed in {report}); complete the data folder, or leave "
            "them out with --allow-missing"
        )
    kept = cohort[cohort["sample_id"].isin(index["sample_id"])].reset_index(drop=True)
    if kept.empty:
        reason = f"{report} lists why" if len(problems) else "this collection has none"
        raise InputError(f"no view of the cohort is left for the streams {', '.join(streams)}; {reason}")
    for view in VIEWS:  # from here on, a view that was left out counts as absent
        gone = [(sample, view) in broken for sample in kept["sample_id"]]
        kept[f"whole_{view}"] = kept[f"whole_{view}"].mask(gone)
    return Prepared(cache, kept, index, problems.reset_index(drop=True), tuple(views), tuple(streams), data.image_size)
