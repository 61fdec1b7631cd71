"""Data sets by name, with the functions that open them. Register your own to train and score on it.

    register_data_set("mine", lambda root: Collection(root, read_my_table(root), MySource(root)))

A profile names its data set (``data_set: mine``, or ``data_set: my_module:open_mine``, which needs no registration).
Cohorts, preparation, training and evaluation are used unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..config import BUILD, Profile, closest
from ..config.registry import import_named
from ..errors import InputError
from . import external
from .cbis_ddsm import open_source, read_tables
from .cbis_ddsm.defects import STAMP
from .collection import PHANTOM, Collection
from .object_storage import as_address
from .phantom import VERSION, write_phantom
from .sample import sample_breasts, sample_folder


def open_cbis_ddsm(root: Path) -> Collection:
    """Open a copy of CBIS-DDSM, or a phantom of it, in any layout."""
    table, source = read_tables(root), open_source(root)
    name = PHANTOM if (root / STAMP).is_file() else f"CBIS-DDSM, layout {source.kind}"
    return Collection(root, table, source, name=name)


DATA_SETS: dict[str, Callable[[Path], Collection]] = {
    "cbis-ddsm": open_cbis_ddsm,
    "cmmd": lambda root: external.open_cmmd(root),
}


def register_data_set(name: str, opener: Callable[[Path], Collection]) -> None:
    """Make a data set available under a name; ``opener`` maps its folder to a collection."""
    DATA_SETS[name] = opener


def open_collection(profile: Profile, data: str | Path | None = None, *, sample: bool = False) -> Collection:
    """Open the data set of a profile, below ``data``, else ``MAMMO_DATA``; a phantom is written when it is absent.

    With ``sample``, the eight breasts that ship with the project are used if no folder is given.

    Raises
    ------
    InputError
        The profile needs real images and no folder was given, the folder does not exist, or the data set is unknown.
    """
    if ":" in profile.data_set:  # module:function, importable where mammo is called
        try:
            DATA_SETS[profile.data_set] = import_named(profile.data_set)
        except (ImportError, AttributeError) as error:
            raise InputError(f"profile {profile.name!r}: data_set {profile.data_set!r}: {error}") from None
    if profile.data_set not in DATA_SETS:
        raise InputError(
            f"profile {profile.name!r}: unknown data_set {profile.data_set!r}: choose one of {', '.join(DATA_SETS)}"
            f"{closest(profile.data_set, DATA_SETS)}"
        )
    if profile.phantom_breasts is not None:
        if data is not None and not (Path(data) / STAMP).is_file():
            raise InputError(
                f"{data}: profile {profile.name!r} reads a synthetic phantom, not your images; choose --profile mirror "
                "(800-px films) or --profile paper (full resolution), or leave --data out"
            )
        root = Path(data) if data is not None else _phantom_of(profile)
    elif sample and profile.data_set == "cbis-ddsm" and not (data or os.environ.get("MAMMO_DATA")):
        return open_sample()
    else:
        root = data_folder(data, f"profile {profile.name!r} needs real images: ")
    return DATA_SETS[profile.data_set](root)


def open_sample() -> Collection:
    """Open the official tables and the eight breasts that ship with the project."""
    return replace(open_cbis_ddsm(sample_folder()), only=frozenset(sample_breasts()))


def data_folder(data: str | Path | None, who: str = "") -> Path:
    """Return the folder ``data``, else ``MAMMO_DATA``.

    Raises
    ------
    InputError
        None was given, or it does not exist.
    """
    given = data or os.environ.get("MAMMO_DATA")
    if not given:
        raise InputError(f"{who}give the folder of CBIS-DDSM with --data DIR (make: DATA=DIR) or MAMMO_DATA")
    if address := as_address(given):
        raise InputError(f"{address}: not a folder; copy it into one first: mammo data fetch FOLDER --from {address}")
    root = Path(os.path.realpath(os.path.expanduser(given)))  # pathlib's methods raise for circular links
    if not root.is_dir():
        source = "MAMMO_DATA=" if str(given) == os.environ.get("MAMMO_DATA") else ""
        raise InputError(
            f"{source}{root}: no such folder; give the folder of CBIS-DDSM with --data DIR (make: DATA=DIR)"
        )
    return root


def suited_profile(data: Path) -> str:
    """Return the name of the profile that suits a folder: for a phantom, for 800-px films, or else the paper's."""
    if (data / STAMP).is_file():
        return "smoke"
    return "mirror" if (data / "mass-800").is_dir() else "paper"


def suited_layout(profile: Profile) -> str:
    """Return the layout in which a phantom replaces the images of a profile, as :func:`suited_profile` finds it."""
    return "mirror-800" if profile.name.startswith("mirror") else "nbia"


def _phantom_of(profile: Profile) -> Path:
    root = BUILD / "phantom" / f"{profile.phantom_breasts}-breasts-seed{profile.phantom_seed}-v{VERSION}"
    write_phantom(root, n_breasts=profile.phantom_breasts, seed=profile.phantom_seed)
    return root
