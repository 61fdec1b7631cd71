"""The data set at hand: its tables, its images, and the prepared pixels of a cohort."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..config import BUILD, Profile, RunConfig
from ..errors import InputError
from .cohort import build_cohort, with_extra
from .phantom import VERSION as PHANTOM_VERSION
from .phantom import write_phantom
from .prepare import Prepared, prepare
from .sources import ImageSource, open_source
from .tables import read_tables

CACHE = BUILD / "cache"


@dataclass(frozen=True)
class Collection:
    """One copy of CBIS-DDSM (or a phantom of it) on disk."""

    root: Path
    table: pd.DataFrame
    source: ImageSource
    ready: dict = field(default_factory=dict, repr=False, compare=False)  # what was prepared before, in this process

    def cohort(self, config: RunConfig, split: str) -> pd.DataFrame:
        """Return the breasts of an official split, one row each."""
        return build_cohort(self.table, config.data.definition, split)

    def prepare(self, config: RunConfig, split: str, **where) -> Prepared:
        """Return the split's pixels as the network sees them, decoding what the cache lacks.

        ``where`` is ``workers`` (processes) or ``cluster`` (the address of a Dask scheduler).
        """
        model = config.model
        key = (config.data, model.views, model.streams, split, CACHE)
        if key not in self.ready:
            self.ready[key] = self._prepare(config, split, where)
        return self.ready[key]

    def _prepare(self, config: RunConfig, split: str, where: dict) -> Prepared:
        model = config.model
        cohort = self.cohort(config, split).assign(is_extra=False)
        if split == "train" and config.data.extra_training:
            cohort = with_extra(cohort, build_cohort(self.table, config.data.extra_training, split))
        return prepare(cohort, self.source, config.data, model.views, model.streams, cache=CACHE, **where)


def data_root(profile: Profile, data: str | Path | None = None) -> Path:
    """Return the folder of a profile's data: ``data``, else ``MAMMO_DATA``, or the phantom, written when absent.

    Raises
    ------
    InputError
        The profile needs real data and no folder was given.
    """
    if profile.phantom_breasts is not None:
        root = BUILD / "phantom" / f"{profile.phantom_breasts}-breasts-seed{profile.phantom_seed}-v{PHANTOM_VERSION}"
        write_phantom(root, n_breasts=profile.phantom_breasts, seed=profile.phantom_seed)
        return root
    given = data or os.environ.get("MAMMO_DATA")
    if not given:
        raise InputError(
            f"profile {profile.name!r} needs real images: give the folder of CBIS-DDSM with --data DIR "
            "(make: DATA=DIR) or MAMMO_DATA"
        )
    root = Path(given).expanduser().resolve()
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder of CBIS-DDSM with --data DIR (make: DATA=DIR)")
    return root


def open_collection(profile: Profile, data: str | Path | None = None) -> Collection:
    """Open the data set of a profile."""
    root = data_root(profile, data)
    return Collection(root, read_tables(root), open_source(root))
