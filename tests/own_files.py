"""The images of a user's own data set, for the tests that train on one."""

import numpy as np

from mammo_lib.data.views import Located, locate_each


class OwnFiles:
    """PNG files below ``root``, named by a pattern of breast and view, and a lesion box in each, the same for all."""

    kind = "own"

    def __init__(self, root, pattern, box):
        self.root, self.pattern, self.box = root, pattern, box

    def locate(self, cohort):
        return locate_each(cohort, self._locate)

    def boxes(self, cohort):
        return {}

    def _locate(self, row, view, stream):
        path, is_crop = str(self.root / self.pattern.format(row.breast_id, view)), stream == "crop"
        box = self.box if is_crop else (np.nan,) * 4
        return Located(row.sample_id, row.breast_id, view, stream, "found", path, box=box, derived=is_crop)
