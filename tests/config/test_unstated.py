"""What the paper leaves open, as read from the config."""

from mammo_lib.config import RunConfig, get_profile, merged, unstated


def test_each_statement_with_two_readings_offers_another_one():
    rows = {row["setting"]: row for row in unstated.two_readings()}
    assert [*rows] == [*unstated.TWO_READINGS]
    assert rows["model.mixer"]["default"] == "selective" and rows["model.mixer"]["alternatives"] == "gated_conv"
    assert all(row["alternatives"] and row["default"] not in row["alternatives"].split(", ") for row in rows.values())


def test_assumptions_show_the_value_of_each_profile():
    paper = get_profile("paper")
    bare = paper.model_copy(
        update={
            "name": "bare",
            "run": RunConfig.model_validate(merged(paper.run.model_dump(), {"model": {"gate": "none"}})),
        }
    )
    rows = {row["setting"]: row for row in unstated.not_stated([paper, bare])}
    assert rows["train.learning_rate"]["paper"] == str(paper.run.train.learning_rate)
    assert rows["model.gate.bias"]["paper"] == "2.0" and rows["model.gate.bias"]["bare"] == "–"
    assert all("assumption" in row["meaning"] or "not stated" in row["meaning"] for row in rows.values())
