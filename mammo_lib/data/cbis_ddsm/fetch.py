"""Download CBIS-DDSM: the tables, and the series that a cohort needs.

They come from The Cancer Imaging Archive, or from object storage in any layout. A series of the archive is moved into
place when its images are complete. A killed download therefore resumes, and the folder never contains an incomplete
series.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import urllib.request
from pathlib import Path, PurePosixPath

import pandas as pd
from tqdm import tqdm

from ...errors import InputError
from ...files import read_json, read_table, safe_name, with_numbers
from ..cohort import build_cohorts
from ..folders import find_collection
from ..object_storage import PARTIAL, Stored, copy_objects
from ..views import VIEWS
from .audit import MANIFEST
from .series import UID, index_dicom
from .tables import read_tables, table_fingerprint

SERIES = MANIFEST.with_name("cbis_ddsm_series.csv.gz")
BATCH = 16  # series per request to the archive
LISTS = (".csv", ".csv.gz", ".json")


def fetch_tables(folder: Path) -> pd.DataFrame:
    """Download the description tables that ``folder/tables`` lacks, check them, and return the tidy table.

    Raises
    ------
    InputError
        The archive cannot be reached, or the download is not the published table.
    """
    manifest = read_json(MANIFEST)
    target = folder / "tables"
    target.mkdir(parents=True, exist_ok=True)
    for name, url in manifest["table_urls"].items():
        if not (target / safe_name(name)).is_file():
            _download(url, target / safe_name(name))
    table = read_tables(folder)
    if table_fingerprint(table) != manifest["canonical_sha256"]:
        raise InputError(f"{target}: not the published tables; run `mammo data audit --data {folder}` to see where")
    return table


def copy_tables(stored: Stored, folder: Path) -> pd.DataFrame:
    """Copy every table and list of object storage into ``folder``, and return the tidy description table."""
    copy_objects(stored, (name for name in stored.objects if name.endswith(LISTS)), folder)
    return read_tables(folder)


def objects_of_cohort(stored: Stored, table: pd.DataFrame, definition: str) -> list[str]:
    """Return the objects that a cohort needs: those whose path names one of its series, or no series at all."""
    wanted, uid = set(_series_names(table, definition)), re.compile(UID)
    named = {name: set(uid.findall(PurePosixPath(name).parent.as_posix())) for name in stored.objects}
    return [name for name, series in named.items() if not series or series & wanted]


def series_of_cohort(table: pd.DataFrame, definition: str) -> pd.DataFrame:
    """Return ``series description images megabytes`` of every film, crop and mask that a cohort's rows name."""
    known = read_table(SERIES, ["series", "description", "images", "megabytes"])
    known = with_numbers(SERIES, known, ["images", "megabytes"]).set_index("series")
    return known.reindex(_series_names(table, definition)).rename_axis("series").reset_index()


def _series_names(table: pd.DataFrame, definition: str) -> list[str]:
    paths = [
        path
        for cohort in build_cohorts(table, definition).values()
        for view in VIEWS
        for column in (f"whole_{view}", f"crops_{view}", f"masks_{view}")
        for cell in cohort[column].dropna()
        for path in ((cell,) if isinstance(cell, str) else cell)
    ]
    return sorted({Path(path).parent.name for path in paths})


def fetch_series(series: pd.DataFrame, folder: Path) -> None:
    """Download the series that ``folder`` lacks, with a progress bar; each is checked before it is moved in.

    Raises
    ------
    InputError
        The name of a series is not a valid folder name, the extra ``data`` is not installed, the archive cannot be
        reached, or some series are incomplete.
    """
    for uid in series["series"]:
        if safe_name(uid) != uid:
            raise InputError(f"{uid!r} is not the name of a series; download the description tables again")
    waiting = series[[not (folder / uid).is_dir() for uid in series["series"]]]
    nbia, partial = _nbia(), folder / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    failed = []
    with tqdm(total=len(series), initial=len(series) - len(waiting), desc="series", unit="series") as bar:
        for start in range(0, len(waiting), BATCH):
            batch = waiting.iloc[start : start + BATCH]
            nbia.downloadSeries(batch["series"].tolist(), input_type="list", path=str(partial))
            arrived = [_move_if_complete(row, partial, folder) for row in batch.itertuples()]
            failed += batch["series"][[not is_there for is_there in arrived]].tolist()
            if not any(arrived):
                raise InputError(
                    "The Cancer Imaging Archive cannot be reached or refused the request; check the connection, then "
                    f"run the same command again ({bar.n} of {len(series)} series are complete)"
                )
            bar.update(sum(arrived))
    shutil.rmtree(partial, ignore_errors=True)
    if failed:
        raise InputError(f"{len(failed)} series are incomplete, the first is {failed[0]}; run the same command again")


def _move_if_complete(row, partial: Path, folder: Path) -> bool:
    arrived = partial / row.series
    if not arrived.is_dir():
        return False
    files = index_dicom(arrived, find_collection(arrived, "DICOM"))
    if len(files) != row.images or files["problem"].ne("").any() or files["series"].ne(row.series).any():
        return False
    os.replace(arrived, folder / row.series)
    return True


def _download(url: str, target: Path) -> None:
    half = target.with_name(f".{target.name}")
    try:
        with urllib.request.urlopen(url, timeout=30) as answer, open(half, "wb") as stream:
            shutil.copyfileobj(answer, stream)
    except OSError as error:
        raise InputError(
            f"{url}: cannot be downloaded ({getattr(error, 'reason', error)}); try again with a connection, or put "
            f"the file into {target.parent} by hand"
        ) from None
    else:
        os.replace(half, target)
    finally:
        half.unlink(missing_ok=True)


def _nbia():
    try:
        from tcia_utils import nbia
    except ImportError:
        raise InputError("downloading needs the extra 'data': pip install -e '.[data]'") from None
    logging.getLogger("tcia_utils").setLevel(logging.ERROR)
    return nbia
