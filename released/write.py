"""Write the released network again: `python released/write.py RUN DATA`.

RUN is the folder of the cross-validated run `dual`, seed 0, with its folds; DATA a copy of the 800-px films. The
network of fold 0 is released: it never saw the patients of the sample, who are held out in that fold.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mammo_lib.config import get_profile
from mammo_lib.data import open_collection
from mammo_lib.inference.release import write_release
from mammo_lib.runs.records import Run

FOLD = 0


def main(run: Path, data: Path) -> None:
    """Write the released network beside this file."""
    joined, collection = Run(run), open_collection(get_profile("mirror-cv"), data)
    held_out = joined.predictions.query("fold == @FOLD").reset_index(drop=True)
    released = write_release(Run(run / f"fold{FOLD}"), Path(__file__).parent / "dual", collection, held_out)
    for split, metrics in released.metrics.items():
        print(f"{split}: AUC {metrics['auc']['value']:.3f}, {metrics['auc']['n']} breasts")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
