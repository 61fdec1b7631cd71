"""What the training losses of records say: which fits learned nothing."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mammo_lib import figures
from mammo_lib.analysis import diagnostics, learning
from mammo_lib.errors import InputError


def record(home, *last, seed=0, targets=("malignancy",)):
    """Return a record of a cross-validation whose folds end at these training losses."""
    history = pd.concat(
        pd.DataFrame({"epoch": range(3), "train_loss": [0.7, 0.69, loss], "fold": fold})
        for fold, loss in enumerate(last)
    )
    rng, n = np.random.default_rng(seed), 40
    label = np.arange(n) % 2
    logit = label + rng.normal(size=n)
    predictions = pd.DataFrame({
        "sample_id": [f"b{i:02d}" for i in range(n)], "patient_id": np.arange(n), "label": label, "logit": logit,
        "probability": 1 / (1 + np.exp(-logit)), "split": "out_of_fold", "fold": np.arange(n) % 4 // 2,
    })  # fmt: skip
    folder = home / f"{len(list(home.iterdir()))}"
    folder.mkdir()
    history = history.sample(frac=1, random_state=0)
    history.to_csv(folder / "history.csv", index=False)
    config = SimpleNamespace(model=SimpleNamespace(targets=targets))
    return SimpleNamespace(folder=folder, config=config, history=history, predictions=predictions)


def test_a_fit_that_ends_at_a_constant_answer_is_stuck(tmp_path):
    table = learning.fitted(
        {
            "films": [record(tmp_path, 0.692, 0.688), record(tmp_path, 0.60, 0.693, seed=1)],
            "crops": [record(tmp_path, 0.6, 0.5)],
        }
    )
    films, crops = table.to_dict("records")
    assert films["fits"] == 4 and films["stuck"] == 3
    assert crops["stuck"] == 0 and crops["last_loss"] == pytest.approx(0.55)
    assert learning.fitted_in_words(table) == (
        "Fits whose training loss ended less than 0.01 below that of a constant answer, 0.693: films: 3 of 4 (mean "
        "loss 0.668); crops: none of 2 (mean loss 0.550)."
    )


def test_the_loss_of_one_half_does_not_depend_on_the_target():
    for target in (0.0, 0.3, 1.0):
        loss = -(target * math.log(0.5) + (1 - target) * math.log(0.5))
        assert loss == pytest.approx(diagnostics.CONSTANT_ANSWER)


def test_the_figure_has_a_line_per_network_and_the_constant_answer(tmp_path):
    histories = {
        "films": learning.fits([record(tmp_path, 0.692, 0.688)]),
        "crops": learning.fits([record(tmp_path, 0.6, 0.5)]),
    }
    figure = figures.training_losses(histories, diagnostics.CONSTANT_ANSWER, "films learn nothing")
    [axes] = figure.axes
    assert len(axes.lines) == 3 and axes.lines[-1].get_ydata()[0] == diagnostics.CONSTANT_ANSWER
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [0.7, 0.69, 0.55])


def test_nothing_is_said_of_a_sum_of_losses_or_without_a_history(tmp_path):
    several, without = record(tmp_path, 1.2, targets=("malignancy", "shape")), record(tmp_path, 0.6)
    (without.folder / "history.csv").unlink()
    assert learning.last_losses(several) == learning.last_losses(without) == {}
    assert learning.fitted_in_words(learning.fitted({"several": [several]})) == "No training loss is known."


def test_a_history_without_folds_is_named(tmp_path):
    broken = record(tmp_path, 0.6)
    broken.history = broken.history.drop(columns="fold")
    with pytest.raises(InputError, match=r"history\.csv: the column 'fold' is missing"):
        learning.last_losses(broken)
