"""Export of the results for other tools: records as they are, plain CSV tables, a data package and an RO-Crate.

| file | holds |
|---|---|
| ``records/`` | a copy of the records |
| ``tables/runs.csv`` | one row per run: experiment, seed, commit, data, every setting |
| ``tables/metrics.csv`` | one row per run, split and metric: value and interval |
| ``tables/predictions.csv`` and others | the records' own tables, after the columns ``experiment`` and ``run`` |
| ``datapackage.json`` | the tables' columns and types, as Frictionless reads them |
| ``ro-crate-metadata.json`` | what made each record (:mod:`mammo_lib.runs.crate`) |
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pandas as pd

from .. import __version__
from ..config.identity import flat
from ..errors import InputError
from ..files import file_hash, new_folder, write_csv, write_json
from .crate import CBIS_DDSM, add_file, add_run, new_crate, write_crate
from .records import Run, copy_record, whole_records

TABLES = (  # as attributes of a run
    "predictions", "history", "gates", "gate_history", "interventions", "hidden_inputs", "targets",
)  # fmt: skip
KINDS = {"i": "integer", "u": "integer", "f": "number", "b": "boolean"}  # numpy's kinds of numbers, in Frictionless


def export_records(home: Path, folder: Path) -> int:
    """Write every record below ``home`` into a new folder, as tables and unchanged; return how many there are.

    Raises
    ------
    InputError
        There is no record, one is damaged, or the folder is in use.
    """
    folder = new_folder(folder)
    runs = whole_records(home)
    for run in runs:
        if faults := run.faults():
            raise InputError(faults[0])
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: in use; give a new folder")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        _export(runs, partial)
        if folder.exists():
            folder.rmdir()  # empty: Windows moves nothing onto it
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return len(runs)


def _export(runs: list[Run], folder: Path) -> None:
    (folder / "tables").mkdir(parents=True)
    copies = [_copy(run, folder) for run in runs]
    tables = {"runs": _runs_table(runs), "metrics": _metrics_table(runs)}
    tables |= {name: table for name in TABLES if (table := _joined(runs, name)) is not None}
    tables = {name: table.convert_dtypes() for name, table in tables.items()}  # whole numbers without a point
    for name, table in tables.items():
        write_csv(folder / "tables" / f"{name}.csv", table)
    write_json(folder / "datapackage.json", describe_package(folder, tables))
    crate = new_crate(
        "Mammo-Mamba, reproduced: records of runs",
        "Config, environment, predictions and metrics of every run, and tables of all of them.", based_on=CBIS_DDSM,
    )  # fmt: skip
    for path in [*(Path("tables") / f"{name}.csv" for name in tables), Path("datapackage.json")]:
        add_file(crate, folder, path)
    for copy in copies:
        add_run(crate, copy, folder)
    write_crate(crate, folder)


def describe_package(folder: Path, tables: dict[str, pd.DataFrame]) -> dict:
    """Return the Frictionless data package of exported tables."""
    resources = []
    for name, table in tables.items():
        path = folder / "tables" / f"{name}.csv"
        fields = [{"name": column, "type": _kind(values)} for column, values in table.items()]
        resources.append({
            "name": name.replace("_", "-"), "path": f"tables/{name}.csv", "format": "csv", "mediatype": "text/csv",
            "encoding": "utf-8", "bytes": path.stat().st_size, "hash": f"sha256:{file_hash(path)}",
            "schema": {"fields": fields, "missingValues": [""]},
        })  # fmt: skip
    return {
        "name": "mammo-mamba-reproduced-results", "title": "Mammo-Mamba, reproduced: records of runs",
        "version": __version__, "licenses": [{"name": "Apache-2.0"}], "resources": resources,
        "sources": [{"title": "CBIS-DDSM (CC BY 3.0)", "path": CBIS_DDSM}],
    }  # fmt: skip


def _copy(run: Run, folder: Path) -> Run:
    run.refuse_damage()
    return copy_record(run, folder / "records" / run.name)


def _named(run: Run) -> dict[str, str]:
    return {"experiment": run.folder.parent.name, "run": run.folder.name}


def _runs_table(runs: list[Run]) -> pd.DataFrame:
    rows = []
    for run in runs:
        made = {name: run.environment.get(name) for name in ("commit", "data_hash", "command", "python", "device")}
        rows.append(_named(run) | made | flat(run.config.model_dump(mode="json", exclude={"experiment"})))
    return pd.DataFrame(rows).map(lambda value: " ".join(map(str, value)) if isinstance(value, list) else value)


def _metrics_table(runs: list[Run]) -> pd.DataFrame:
    return pd.DataFrame([
        _named(run) | {"split": split, "metric": name} | values
        for run in runs for split, metrics in run.metrics.items() for name, values in metrics.items()
    ])  # fmt: skip


def _joined(runs: list[Run], name: str) -> pd.DataFrame | None:
    """Return one table of all runs that have it."""
    having = [
        run for run in runs if (run.folder / f"{name}.parquet").is_file() or (run.folder / f"{name}.csv").is_file()
    ]
    parts = [pd.DataFrame(_named(run), index=(table := getattr(run, name)).index).join(table) for run in having]
    return pd.concat(parts, ignore_index=True) if parts else None


def _kind(values: pd.Series) -> str:
    """Return Frictionless' name of a column's type; a column without a value is text."""
    return KINDS.get(getattr(values.dtype, "kind", "O"), "string") if values.notna().any() else "string"
