"""Which collection a folder holds, found by its tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from .adapter import OtherCollection
from .cmmd import adapt_cmmd, find_cmmd
from .inbreast import find_inbreast, open_inbreast
from .mias import find_mias, open_mias
from .vindr import find_vindr, open_vindr


@dataclass(frozen=True)
class Adapter:
    """How a collection is recognised and opened; ``needs`` names its table in words."""

    needs: str
    find: Callable[[Path], list[Path]]
    open: Callable[[Path], OtherCollection]


ADAPTERS = {
    "mini-MIAS": Adapter("Info.txt", find_mias, open_mias),
    "CMMD": Adapter("CMMD_clinicaldata_revision.csv", find_cmmd, adapt_cmmd),
    "INbreast": Adapter("INbreast.csv or INbreast.xls", find_inbreast, open_inbreast),
    "VinDr-Mammo": Adapter("breast-level_annotations.csv", find_vindr, open_vindr),
}


def open_other(root: str | Path) -> OtherCollection:
    """Open the one collection that a folder holds.

    Raises
    ------
    InputError
        The folder does not exist, holds the table of no collection or of several, or its adapter refuses it.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder of a collection")
    found = {name: tables for name, adapter in ADAPTERS.items() if (tables := adapter.find(root))}
    if not found:
        known = "; ".join(f"{name}: {adapter.needs}" for name, adapter in ADAPTERS.items())
        raise InputError(f"{root}: no table of a known collection ({known}); give the folder that holds one")
    if len(found) > 1:
        listed = ", ".join(f"{name} ({tables[0].relative_to(root)})" for name, tables in found.items())
        raise InputError(f"{root}: tables of {len(found)} collections: {listed}; give the folder of one")
    return ADAPTERS[next(iter(found))].open(root)
