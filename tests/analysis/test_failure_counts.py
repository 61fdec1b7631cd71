"""Failure signatures, counted over fits."""

from mammo_lib.analysis.failure_counts import failure_signs, signs_in_words


def test_failures_are_counted_over_fits(repeats):
    signs = failure_signs(repeats).set_index("experiment")
    assert signs["fits"].to_dict() == {"crop_plain": 10, "crop_ssm": 10, "crop_attention": 5, "crop_no_blocks": 10}
    assert (signs["overcalling"] <= signs["fits"]).all() and not signs["gate saturation"].any()
    assert signs["underfitting"].to_dict() == {
        "crop_plain": 0, "crop_ssm": 2, "crop_attention": 0, "crop_no_blocks": 0,
    }  # fmt: skip
    said = signs_in_words(signs)
    assert said.startswith("Of 35 fits of 4 networks: underfitting in 2 (1 network), overcalling in ")
