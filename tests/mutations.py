"""Break the guards that matter, one at a time, and see which test detects it.

    python tests/mutations.py [NUMBER ...]

Each mutation changes one line in a copy of the checkout and runs the tests beside it. A mutation that no test detects
shows a guard that protects nothing. The tests run in sequence, some minutes in all; pytest does not collect this file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "_build", "results", "__pycache__", ".*_cache", "*.egg-info")


class Mutation(NamedTuple):
    """A broken guard: what it protects, its file in ``mammo_lib``, the line and its replacement, and the tests."""

    guards: str
    file: str
    line: str
    broken: str
    tests: str


MUTATIONS = (
    Mutation("no patient trains and validates", "data/cohort.py",
             'train = cohort[~cohort["patient_id"].isin(held_out)]',
             'train = cohort[~cohort["sample_id"].isin(validation["sample_id"])]', "tests/data/test_cohort.py"),
    Mutation("pooled cohorts leak no patient", "data/cohort.py",
             'rows["split"].eq("train") & rows["patient_id"].isin(',
             'rows["split"].eq("none") & rows["patient_id"].isin(', "tests/data"),
    Mutation("single-view breasts are each held out", "data/cohort.py",
             "extra = pd.concat([extra, own])", "extra = extra", "tests/analysis/test_hidden_inputs.py"),
    Mutation("thresholds come from other folds", "statistics/out_of_fold.py",
             "if fold != number]", "if fold == number]", "tests/training/test_cross_validate.py tests/statistics"),
    Mutation("variance is summed within patients", "statistics/out_of_fold.py",
             "np.bincount(pd.factorize(patient)[0], influence)", "influence", "tests/statistics"),
    Mutation("the bootstrap draws patients", "statistics/intervals.py",
             "np.unique(patients, return_inverse=True)", "np.unique(np.arange(len(patients)), return_inverse=True)",
             "tests/statistics"),
    Mutation("a group's threshold comes from other folds", "statistics/fold_groups.py",
             'others = frame[(frame["fold"] != fold)', 'others = frame[(frame["fold"] == fold)',
             "tests/statistics/test_fold_groups.py"),
    Mutation("markup in a cell is escaped", "analysis/wording.py",
             'return MARKUP.sub(r"\\\\\\g<0>", html.escape(line, quote=False))', "return line",
             "tests/analysis/test_wording.py"),
    Mutation("a damaged record is refused", "runs/records.py",
             "if self.is_finished and (faults := check_files(self.folder)):", "if False and (faults := []):",
             "tests/runs/test_records.py"),
    Mutation("files are written whole or not at all", "files.py",
             'partial = path.parent / f".{path.name}.{os.getpid()}"', "partial = path", "tests/test_files.py"),
    Mutation("a phantom's network gives no decision", "inference/predict.py",
             'None if facts["is_phantom"] else "malignant"', '"malignant"', "tests/inference/test_release.py"),
    Mutation("validation breasts are found among training films", "data/views.py",
             'return "test" if part == "test" else "train"', "return part",
             "tests/data/cbis_ddsm/test_mirror.py"),
    Mutation("MONOCHROME1 is inverted", "data/grey_levels.py",
             'if dataset.PhotometricInterpretation == "MONOCHROME1":', "if False:", "tests/data/test_grey_levels.py"),
    Mutation("pixels are divided by the stored range", "data/grey_levels.py",
             "bits = int(dataset.BitsStored)", "bits = int(dataset.BitsAllocated)", "tests/data/test_grey_levels.py"),
    Mutation("G = 1 is MambaVision", "models/seqmoe.py",
             "mixed = gate * mixed + (1 - gate) * tokens", "mixed = (1 - gate) * mixed + gate * tokens",
             "tests/models/test_seqmoe.py"),
    Mutation("a missing stream has no weight", "models/mammo_mamba.py",
             "gate = torch.where(has_crop & has_whole, gate, has_crop.to(gate.dtype))", "gate = gate",
             "tests/models/test_mammo_mamba.py"),
    Mutation("something of every breast is left", "training/hiding.py",
             "left = torch.where(left.any(dim=(1, 2), keepdim=True), left, shown)", "left = left",
             "tests/training/test_hiding.py"),
    Mutation("no gradient passes through a loss's factor", "training/joint_loss.py",
             "for one in torch.autograd.grad(of, embeddings, retain_graph=True)]",
             "for one in torch.autograd.grad(of, embeddings, create_graph=True)]", "tests/training/test_joint_loss.py"),
    Mutation("a target's lowest value is its first class", "data/loader.py",
             'fillna(UNKNOWN + target.lowest) - target.lowest', 'fillna(UNKNOWN)', "tests/data/test_loader.py"),
    Mutation("networks of different folds are not compared", "analysis/diagnostics.py",
             'compare = _compare_within_folds if "fold" in scores else _compare', "compare = _compare",
             "tests/analysis/test_diagnostics.py"),
)  # fmt: skip


def is_noticed(copy: Path, mutation: Mutation) -> bool:
    """Break one guard of the copy, run its tests, and mend it again."""
    path = copy / "mammo_lib" / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.line) != 1:
        raise SystemExit(f"{mutation.file}: {text.count(mutation.line)} lines read {mutation.line!r}; mend the list")
    path.write_text(text.replace(mutation.line, mutation.broken), encoding="utf-8")
    env = os.environ | {"PYTHONPATH": str(copy), "MAMMO_ROOT": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-x", "-m", "not slow", *mutation.tests.split()]
    done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True, check=False)
    path.write_text(text, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise SystemExit(f"{mutation.guards}: the tests did not run: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.returncode == 1


def main() -> None:
    """Print a line per mutation; exit 1 if one was not noticed."""
    chosen = [int(one) for one in sys.argv[1:]] or range(1, len(MUTATIONS) + 1)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(ROOT, Path(folder) / "copy", ignore=LEFT_OUT))
        found = []
        for number in chosen:
            mutation = MUTATIONS[number - 1]
            found.append(is_noticed(copy, mutation))
            print(f"{number:2} {'noticed' if found[-1] else 'NOT NOTICED'}: {mutation.guards}", flush=True)
    print(f"{sum(found)} of {len(found)} noticed")
    sys.exit(0 if all(found) else 1)


if __name__ == "__main__":
    main()
