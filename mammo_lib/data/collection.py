"""A data set: its lesion table, its images, and the prepared pixels of a cohort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..config import BUILD, DataConfig
from .cohort import select_cohort
from .prepare import Prepared, data_hash, prepare
from .views import STREAMS, VIEWS, ImageSource

CACHE = BUILD / "cache"
PHANTOM = "synthetic phantom"


@dataclass(frozen=True)
class Collection:
    """One data set on disk.

    ``table`` has one row per lesion and view, with the columns of :func:`mammo_lib.data.read_tables`; ``source`` says
    where the image of a view is (:class:`mammo_lib.data.views.ImageSource`). ``only`` names the breasts whose images
    are part of a sample; None: all are expected. ``name`` is written into the records of runs on it.
    """

    root: Path
    table: pd.DataFrame
    source: ImageSource
    only: frozenset[str] | None = None
    name: str = "a data set of one's own"
    ready: dict = field(default_factory=dict, repr=False, compare=False)  # what was prepared before, in this process

    @property
    def is_sample(self) -> bool:
        """Whether the tables are whole but most images are absent, so that nothing can be trained here."""
        return self.only is not None

    def cohort(self, data: DataConfig, split: str) -> pd.DataFrame:
        """Return the breasts of an official split, one row each; breasts for training only are marked ``is_extra``."""
        return select_cohort(self.table, data, split)

    def prepare(
        self, split: str, data: DataConfig, views: Sequence[str] = VIEWS, streams: Sequence[str] = STREAMS, **where
    ) -> Prepared:
        """Return the split's pixels as input of a network; images that are not in the cache are decoded.

        ``where`` is ``workers`` (processes) or ``cluster`` (the address of a Dask scheduler).
        """
        key = (split, data, tuple(views), tuple(streams), CACHE)
        if key not in self.ready:
            self.ready[key] = prepare(self._held(data, split), self.source, data, views, streams, cache=CACHE, **where)
        return self.ready[key]

    def data_hash(
        self, split: str, data: DataConfig, views: Sequence[str] = VIEWS, streams: Sequence[str] = STREAMS
    ) -> str:
        """Return the fingerprint of what :meth:`prepare` returns, by which records are found.

        No image is decoded, unless some are missing or may be left out (``data.allow_missing``); then all are prepared.
        """
        key = ("hash", split, data, tuple(views), tuple(streams), CACHE)
        if key not in self.ready:
            known = data_hash(self._held(data, split), self.source, data, views, streams, cache=CACHE)
            self.ready[key] = known or self.prepare(split, data, views, streams).fingerprint
        return self.ready[key]

    def pixel_mm(self, row) -> float | None:
        """Return the side of a pixel of a located view as read, in mm; None if the data set does not state it."""
        find = None if self.name == PHANTOM else getattr(self.source, "pixel_mm", None)
        return find(row) if find else None

    def _held(self, data: DataConfig, split: str) -> pd.DataFrame:
        """Return the breasts of a split whose images are expected here."""
        cohort = self.cohort(data, split)
        return cohort if self.only is None else cohort[cohort["breast_id"].isin(self.only)].reset_index(drop=True)
