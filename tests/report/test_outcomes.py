"""What became of a notebook, and the time that is left."""

import pickle

from mammo_lib.report import outcomes


def test_time_left_is_what_it_took_before_and_the_mean_where_that_is_unknown(tmp_path, step_of):
    steps = [step_of("00", tmp_path), step_of("01", tmp_path, expected=30.0), step_of("02", tmp_path)]
    done = outcomes.StepOutcome(steps[0], "done", 10.0)
    assert outcomes.seconds_left(steps, [done]) == 30 + (30 + 10) / 2
    assert outcomes.seconds_left(steps, [done], jobs=2) == 25
    assert outcomes.seconds_left([steps[0], steps[2]], []) is None
    assert "about 50 s left" in outcomes.progress_line(steps, [done])


def test_a_failure_can_come_from_another_process(tmp_path):
    error = outcomes.NotebookFailed(tmp_path / "06.ipynb", 3, "ValueError", "no", "1 / 0", tmp_path)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.source, copy.partial) == (str(error), "1 / 0", tmp_path)
