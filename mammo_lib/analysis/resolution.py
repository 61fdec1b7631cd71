"""What a larger input is worth, from records of cross-validation: chapter 10 (protocols 2, 6, 7, 9 and 10). No torch.

*Repeats* are ``{experiment: [run per repeat]}``; differences are worded by
:func:`mammo_lib.analysis.sentences.brief`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from ..config import RunConfig, get_profile
from ..runs.records import Run
from ..statistics import stratified_auc
from . import answers, learning, limits, sentences
from .answers import Repeats
from .wording import estimate, in_words

STREAMS = {"crop": "crops", "whole": "whole films"}
LARGER = "mirror-resolution-training"  # protocol 10
FROZEN = "frozen stages, logistic regression"
AUC = ("auc", "auc_low", "auc_high")


def by_side(repeats: Repeats) -> pd.DataFrame:
    """Return ``images classifier side auc auc_low auc_high repeats n`` of one stream on square inputs, by side.

    Networks whose frozen stages end at stride 8, or that have no token blocks, are left out: they differ from the
    others in more than the input.
    """
    rows = []
    for runs in repeats.values():
        model, (height, width) = runs[0].config.model, runs[0].config.data.image_size
        is_another = model.frozen_stride == 8 or model.token_blocks == "none"
        if len(model.streams) > 1 or height != width or is_another:
            continue
        is_network = runs[0].config.baseline is None
        frames = [run.predictions for run in runs]
        rows.append({
            "images": STREAMS[model.streams[0]],
            "classifier": _classifier(runs[0].config) if is_network else FROZEN,
            "side": height, **estimate("auc", stratified_auc(frames)), "repeats": len(runs), "n": len(frames[0]),
        })  # fmt: skip
    table = pd.DataFrame(rows, columns=["images", "classifier", "side", *AUC, "repeats", "n"])
    return table.sort_values(["images", "classifier", "side"], ignore_index=True)


def _classifier(config: RunConfig) -> str:
    mode = ", training mode" if config.train.cached_encoder == "training" else ""
    return f"trained network, stride {config.model.frozen_stride}{mode}"


def every_side() -> Repeats:
    """Return the committed repeats of one stream at every size: trained networks, and frozen stages of protocol 7."""
    own = {"mirror-cv": ("crop", "crop_160_16", "crop_224_16", "crop_224_32", "whole")}
    return _of_profiles(("mirror-cv", "mirror-whole", "mirror-resolution"), own)


def in_training_mode() -> Repeats:
    """Return the networks whose encoder was in training mode: second series of protocol 2, protocols 9 and 10."""
    own = {"mirror-cv-training": ("crop", "crop_160_16", "whole")}
    return _of_profiles(("mirror-cv-training", "mirror-whole-training", LARGER), own)


def _of_profiles(profiles: Sequence[str], only: Mapping[str, Sequence[str]]) -> Repeats:
    """Return the committed repeats of profiles; for a profile in ``only``, just the networks named there."""
    found: dict[str, Sequence[Run]] = {}
    for profile in profiles:
        own = answers.find_repeats(get_profile(profile))
        found |= {name: runs for name, runs in own.items() if name in only.get(profile, own)}
    return found


def larger_in_words(repeats: Repeats) -> str:
    """Say in one sentence whether a larger input raised the AUC of the frozen stages (protocol 7)."""
    profile = get_profile("mirror-resolution")
    every = pd.concat(answers.answers(profile, group, repeats) for group in ("crop_size", "film_size"))
    if every.empty:
        return "Whether a larger input helps has not been run yet."
    is_different = every["answer"].isin([answers.DIFFERENT, answers.BOTH])
    better, worse = (int((is_different & (every["difference"] * sign > 0)).sum()) for sign in (1, -1))
    lowest, highest = every["difference"].min(), every["difference"].max()
    return (
        f"Of {len(every)} larger inputs to the frozen stages of small networks, {better or 'none'} is shown to raise "
        f"the AUC on these films above that of 96 pixels, and {worse or 'none'} to lower it (changes of "
        f"{lowest:+.3f} to {highest:+.3f})."
    )


def crops_in_short(repeats: Repeats) -> str:
    """Say what larger crops are worth to the frozen stages (protocol 7)."""
    profile = get_profile("mirror-resolution")
    return sentences.brief(answers.answers(profile, "crop_size", repeats), "crops of 96 px", len(profile.seeds))


def frozen_films_in_short(repeats: Repeats) -> str:
    """Say what larger whole films are worth to the frozen stages (protocol 7)."""
    profile = get_profile("mirror-resolution")
    return sentences.brief(answers.answers(profile, "film_size", repeats), "films of 96 px", len(profile.seeds))


def films_in_short(repeats: Repeats) -> str:
    """Say what larger and differently shaped films are worth, to frozen stages and to networks of the first series."""
    six = get_profile("mirror-whole")
    size = limits.against_reference(six, "size", repeats.get("whole", ()), repeats)
    trained = sentences.brief(size, "films of 96 px")
    shape = sentences.brief(answers.answers(six, "shape", repeats), "padded squares")
    names = {"128 px": "whole_128", "224 px": "whole_224", "160 x 96 px": "whole_tall"}
    networks = {side: repeats[name] for side, name in names.items() if name in repeats}
    stuck = f" {learning.fitted_in_words(learning.fitted(networks))}" if networks else ""
    return f"Frozen stages. {frozen_films_in_short(repeats)} Trained networks. {trained} {shape}{stuck}"


def training_in_short(repeats: Repeats) -> str:
    """Compare the network trained on whole films with the frozen stages that it is built on (not a planned comparison).

    Empty if one of them has no record.
    """
    if not {"whole", "stages_whole_96"} <= repeats.keys():
        return ""
    ours, theirs = answers.common(repeats["whole"], repeats["stages_whole_96"])
    gap = answers.compare_repeats(theirs, ours)
    one, frozen = estimate("difference", gap), estimate("auc", stratified_auc([run.predictions for run in theirs]))
    said = (
        f"On whole films of 96 px, in the {len(ours)} repeats that both have, frozen stages with a logistic regression "
        f"reach an AUC of {in_words(frozen, 'auc', '')}. The network that was trained on them differs by "
        f"{in_words(one, 'difference')} (not planned)."
    )
    for row in learning.fitted({"whole": ours}).to_dict("records"):  # no row if no training loss is known
        if row["stuck"]:
            said += f" {row['stuck']} of its {row['fits']} fits are stuck (chapter 06a)."
    return said


def again_in_short(again: Repeats, repeats: Repeats) -> str:
    """Say what whole films are worth when the encoder is in training mode (protocol 9), from both kinds of records."""
    profile, whole = get_profile("mirror-whole-training"), again.get("whole", ())
    frozen = {"whole": answers.compare_repeats(repeats.get("stages_whole_96", ()), whole)}
    families = {
        "films of 96 px": limits.against_reference(profile, "size", whole, again),
        "padded squares": answers.answers(profile, "shape", again),
        "the frozen stages of the same films": answers.as_answers(frozen, {"whole": "the network trained on them"}),
    }
    return " ".join([*_in_short(families, len(profile.seeds)), *_stuck(again, "whole")])


def larger_in_short(again: Repeats) -> str:
    """Say what up to 384 pixels are worth to networks in training mode, and token blocks there (protocol 10)."""
    profile = get_profile(LARGER)
    families = {
        "crops of 96 px": limits.against_reference(profile, "crop_size", again.get("crop", ()), again),
        "the network with token blocks": answers.answers(profile, "blocks", again),
        "films of 96 px": limits.against_reference(profile, "film_size", again.get("whole", ()), again),
    }
    return " ".join([*_in_short(families, len(profile.seeds)), *_stuck(again, "crop")])


def _in_short(families: Mapping[str, pd.DataFrame], planned: int) -> list[str]:
    return [sentences.brief(table, called, planned) for called, table in families.items()]


def _stuck(again: Repeats, stream: str) -> list[str]:
    """Say how many fits of the networks of a stream are stuck; nothing if there is no network."""
    own = {_input_in_words(runs[0]): runs for runs in again.values() if runs[0].config.model.streams == (stream,)}
    return [learning.fitted_in_words(learning.fitted(own))] if own else []


def _input_in_words(run: Run) -> str:
    """Return "96 px", or "160 x 96 px" if the input is no square, and whether the network has no token blocks."""
    height, width = run.config.data.image_size
    side = f"{height} px" if height == width else f"{height} x {width} px"
    return f"{side}, no token blocks" if run.config.model.token_blocks == "none" else side
