"""RO-Crates: what was run, on which inputs, with which software, and with what results, in machine-readable form.

Each run, and each ``mammo reproduce``, becomes an action of the profile Process Run Crate 0.5
(https://w3id.org/ro/wfrun/process/0.5): its instrument is this library at a commit, its objects are the config and the
data, its results are files with their SHA-256. All of it is taken from records; nothing is written by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import fingerprint
from ..errors import InputError
from ..files import file_hash
from .manifest import CHECKPOINT, MANIFEST, RECORD
from .records import Run

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
TERMS = "https://w3id.org/ro/terms/workflow-run/context"  # knows sha256
LICENCE = "https://spdx.org/licenses/Apache-2.0"
CBIS_DDSM = "https://doi.org/10.7937/K9/TCIA.2016.7O02S9CY"
INPUTS = ("config.json", "environment.json")
FORMATS = {".json": "application/json", ".csv": "text/csv", ".parquet": "application/vnd.apache.parquet",
           ".ipynb": "application/x-ipynb+json", ".html": "text/html"}  # fmt: skip


def new_crate(name: str, description: str, based_on: str | None = None) -> ROCrate:
    """Return an empty crate that conforms to the profile.

    Raises
    ------
    InputError
        The extra ``book`` is not installed.
    """
    try:
        from rocrate.model.contextentity import ContextEntity
        from rocrate.rocrate import ROCrate
    except ImportError:
        raise InputError("an RO-Crate needs the extra 'book': pip install -e '.[book]'") from None
    crate = ROCrate(version="1.1")
    crate.metadata.extra_contexts.append(TERMS)
    crate.name, crate.description = name, description
    profile = {"@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    crate.root_dataset["conformsTo"] = crate.add(ContextEntity(crate, PROFILE, properties=profile))
    licence = {"@type": "CreativeWork", "name": "Apache License 2.0"}
    crate.license = crate.add(ContextEntity(crate, LICENCE, properties=licence))
    if based_on:
        source = {
            "@type": "CreativeWork",
            "name": "CBIS-DDSM",
            "license": "https://creativecommons.org/licenses/by/3.0/",
        }
        crate.isBasedOn = crate.add(ContextEntity(crate, based_on, properties=source))
    return crate


def add_run(crate: ROCrate, run: Run, folder: Path) -> None:
    """Add a run's record, which lies below the crate's ``folder``, and the action that made it."""
    environment, home = run.environment, run.folder.relative_to(folder)
    names = [name for name in (*RECORD, MANIFEST) if name != CHECKPOINT and (run.folder / name).is_file()]
    files = {name: add_file(crate, folder, home / name) for name in names}
    crate.add_dataset(dest_path=home, properties={"name": run.name})["hasPart"] = [*files.values()]
    action = _add_action(
        crate, f"#{run.name}", environment, environment["packages"] | {"python": environment["python"]},
        name=f"{run.config.experiment}, seed {run.config.seed}", description=environment.get("command"),
        object=[*(files[name] for name in INPUTS), _add_data(crate, environment["data_hash"])],
        result=[one for name, one in files.items() if name not in INPUTS],
    )  # fmt: skip
    if run.receipt:
        action["endTime"] = run.receipt["opened_at"]


def add_reproduction(
    crate: ROCrate, summary: dict, inputs: Iterable[Path], outputs: Iterable[Path], root: Path
) -> None:
    """Add one ``mammo reproduce`` from its summary; inputs and outputs lie below the crate's folder ``root``."""
    data = [_add_data(crate, one) for one in dict.fromkeys(summary["data_hash"].values())]
    files = [[add_file(crate, root, path.relative_to(root)) for path in paths] for paths in (inputs, outputs)]
    action = _add_action(
        crate, "#reproduction", summary, summary["versions"],
        name=f"mammo reproduce, profile {summary['profile']}", description=summary["command"],
        object=[*files[0], *data], result=files[1],
    )  # fmt: skip
    action["startTime"], action["endTime"] = summary["started_at"], summary["updated_at"]
    action["actionStatus"] = "http://schema.org/CompletedActionStatus"


def add_file(crate: ROCrate, folder: Path, path: Path):
    """Add a file at a place relative to the crate's folder, with its hash, size and format."""
    place = folder / path
    properties = {"sha256": file_hash(place), "contentSize": str(place.stat().st_size), "name": path.name}
    if path.suffix in FORMATS:
        properties["encodingFormat"] = FORMATS[path.suffix]
    return crate.add_file(dest_path=path.as_posix(), properties=properties)


def write_crate(crate: ROCrate, folder: Path) -> Path:
    """Write ``ro-crate-metadata.json`` into the crate's folder, and return its path."""
    crate.metadata.write(folder)
    return folder / crate.metadata.id


def _add_action(crate: ROCrate, key: str, environment: dict, versions: dict, **properties):
    """Add an action whose instrument is the library at a commit, with the versions beside it."""
    from rocrate.model.contextentity import ContextEntity
    from rocrate.model.softwareapplication import SoftwareApplication

    needs = [f"{one} {version}" for one, version in sorted(versions.items()) if version and one != "mammo-lib"]
    tool = {
        "name": "mammo-lib", "softwareVersion": f"{versions['mammo-lib']}, commit {environment['commit']}",
        "url": "https://arxiv.org/abs/2507.17662", "softwareRequirements": needs,
        "operatingSystem": environment["system"],
    }  # fmt: skip
    tool |= {"processorRequirements": environment["device"]} if environment.get("device") else {}
    of_tool = f"#mammo-lib-{fingerprint(tool)[:12]}"
    instrument = crate.get(of_tool) or crate.add(SoftwareApplication(crate, of_tool, properties=tool))
    linked = {one: properties.pop(one) for one in ("object", "result")}
    known = {"@type": "CreateAction"} | {one: value for one, value in properties.items() if value}
    action = crate.add(ContextEntity(crate, key, properties=known))
    for one, value in ({"instrument": instrument} | linked).items():
        action[one] = value
    crate.root_dataset.append_to("mentions", action)
    return action


def _add_data(crate: ROCrate, data_hash: str):
    """Add the prepared images and the cohort that a run read, represented only by their hash."""
    from rocrate.model.contextentity import ContextEntity

    about = {"@type": "Dataset", "name": "prepared images and cohort", "identifier": f"sha256:{data_hash}"}
    return crate.get(f"#data-{data_hash}") or crate.add(ContextEntity(crate, f"#data-{data_hash}", properties=about))
