"""Predictions of a trained network for one or more breasts: probability, gates and maps. Research use only.

Images are prepared as in training. Views and streams that are not given are masked, and the record says so. The
probability is the network's own; the decision is made at the run's threshold. The probability after the run's
temperature is given as well.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from scipy.special import expit

from .. import figures
from ..analysis.maps import KINDS, SpatialMap, finest, forward_maps, grad_cam, saliency_maps
from ..config import DataConfig, RunConfig
from ..data.images import breast_mask, fit_into
from ..data.prepare import FULL_SCALE, prepare_view
from ..data.views import CROP_MARGIN, NO_BOX, Box
from ..errors import InputError, writing_to
from ..figures.style import block_name
from ..files import file_hash, read_json, safe_name, write_bytes, write_json
from ..models.network import Network, load_best, to_device
from ..models.seqmoe import parse_gate_name
from ..runs.records import Run
from .checked_images import read_checked
from .inputs import GivenBreast
from .provenance import NOTICE, cost_of_crops, is_phantom, trained_on, with_weights

MIN_GRID = 6  # a map with fewer cells a side is too coarse to be drawn
BATCH = 8  # breasts that pass through the network together
DPI = 150


@dataclass(frozen=True)
class Prediction:
    """The prediction for one breast: ``record``, as written to the JSON file, and the content of the picture.

    ``pixels`` and ``maps`` are (height, width) by (stream, view), for the images that the network read.
    """

    record: dict
    pixels: dict[tuple[str, str], np.ndarray]
    maps: dict[tuple[str, str], np.ndarray]
    map_name: str

    @property
    def line(self) -> str:
        """The result in one line, with every note of the record."""
        record = self.record
        missing = [f"not given: {', '.join(record['missing'])}"] if record["missing"] else []
        at = f"at the threshold {record['threshold']:.3f}"
        decision = f"{record['decision']} {at}" if record["decision"] else "no decision"
        result = f"{record['breast']}: probability {record['probability']:.3f}, {decision}"
        return "; ".join([result, *missing, *(f"NOTE: {note}" for note in record["notes"])])


def predict_breasts(
    run: Run, breasts: Sequence[GivenBreast], *, aspect: float | None = None, refused: list[str] | None = None
) -> Iterator[Prediction]:
    """Yield one prediction per breast, in order; breasts pass through the network in small batches.

    ``aspect``: height over width of the pixels of whole images, if they are not square. A breast with a refused image
    is left out, and the reason is appended to ``refused``; without such a list, it is an error.

    Raises
    ------
    InputError
        The run has no weights on this machine, or an image is refused.
    """
    run = with_weights(run)
    network = load_best(run)
    todo = iter(breasts)
    while chunk := list(islice(todo, BATCH)):
        prepared = []
        for breast in chunk:
            try:
                prepared.append((breast, prepare_breast(breast, network.config, aspect)))
            except InputError as error:
                if refused is None:
                    raise
                refused.append(str(error))
        if prepared:
            yield from _predict(run, network, prepared)


def prepare_breast(breast: GivenBreast, config: RunConfig, aspect: float | None = None) -> dict:
    """Return the network's input pixels of a breast, float32 (height, width) by (stream, view), as in training.

    Raises
    ------
    InputError
        An image is refused, or the network reads none of the given views and streams.
    """
    model, pixels = config.model, {}
    for view in model.views:
        decoded: dict[str, np.ndarray] = {}
        whole, crop = (_row(breast, stream, view, aspect, decoded) for stream in ("whole", "crop"))
        if whole is not None:
            found = prepare_view(whole, crop, config.data, decoded)
        else:
            found = {"crop": _crop_alone(decoded[crop.path], breast.side, config.data)} if crop is not None else {}
        pixels |= {(stream, view): image for stream, image in found.items() if stream in model.streams}
    if not pixels:
        wanted = ", ".join(f"{stream} {view}" for stream in model.streams for view in model.views)
        raise InputError(
            f"{breast.name}: none of its images ({', '.join(' '.join(key) for key in breast.images)}) is read by this "
            f"network; it reads {wanted}"
        )
    # Rounded to 16 bits, as in the cache of training.
    return {
        key: np.round(image * FULL_SCALE).astype(np.uint16) / np.float32(FULL_SCALE) for key, image in pixels.items()
    }


def _row(
    breast: GivenBreast, stream: str, view: str, aspect: float | None, decoded: dict[str, np.ndarray]
) -> SimpleNamespace | None:
    """Return a given image, or the box of a crop in its film, in the form of a located view.

    Images are checked, and their pixels added to ``decoded`` by path.
    """
    path, box = breast.images.get((stream, view)), NO_BOX
    is_cut = path is None and (stream, view) in breast.streams
    if is_cut:
        path, box = breast.images["whole", view], breast.boxes[view]
    if path is None:
        return None
    shape = aspect or breast.aspects.get(view) if stream == "whole" or is_cut else None
    if str(path) not in decoded:  # a film from which a crop is cut comes twice
        decoded[str(path)] = read_checked(path, stream, shape)
    pixels = decoded[str(path)]
    if is_cut:
        _check_box(path, box, pixels)
    x0, y0, x1, y1 = box
    return SimpleNamespace(path=str(path), x0=x0, y0=y0, x1=x1, y1=y1, aspect=shape or 1.0, derived=is_cut)


def _check_box(path: Path, box: Box, film: np.ndarray) -> None:
    """Refuse a box (widened by its margin) whose lesion is not inside the film, or that touches no breast."""
    height, width = film.shape
    x0, y0, x1, y1 = (edge + sign * CROP_MARGIN for edge, sign in zip(box, (1, 1, -1, -1), strict=True))
    lesion = f"{path}: the lesion's box {x0:g},{y0:g},{x1:g},{y1:g}"
    if x1 > width + CROP_MARGIN or y1 > height + CROP_MARGIN or min(x0, box[2]) >= width or min(y0, box[3]) >= height:
        raise InputError(
            f"{lesion} reaches out of the film's {width} x {height} pixels; give it in pixels of this film"
        )
    left, top, right, bottom = (max(0, int(edge)) for edge in box)
    if not breast_mask(film)[top : bottom + 1, left : right + 1].any():
        raise InputError(
            f"{lesion} lies beside the breast; give it in pixels of this film, which are {width} x {height}"
        )


def _crop_alone(image: np.ndarray, side: str, data: DataConfig) -> np.ndarray:
    """Prepare a crop without its film, assuming that it lies as mammograms are displayed: right breasts face left.

    NOTE: films of CBIS-DDSM do so in two of three cases only; with the film no assumption is needed.
    """
    return fit_into(image[:, ::-1] if data.orient and side == "RIGHT" else image, data.image_size)


def as_batch(prepared: Sequence[dict], config: RunConfig) -> dict:
    """Return the pixels of breasts as a batch for the network (for its form see :mod:`mammo_lib.data.loader`)."""
    model, size = config.model, config.data.image_size
    images = {s: torch.zeros(len(prepared), len(model.views), 1, *size) for s in model.streams}
    present = {s: torch.zeros(len(prepared), len(model.views), dtype=torch.bool) for s in model.streams}
    for i, pixels in enumerate(prepared):
        for (stream, view), image in pixels.items():
            images[stream][i, model.views.index(view), 0] = torch.from_numpy(image)
            present[stream][i, model.views.index(view)] = True
    return {"images": images, "present": present}


def _predict(run: Run, network: Network, prepared: list[tuple[GivenBreast, dict]]) -> Iterator[Prediction]:
    batch = to_device(as_batch([pixels for _, pixels in prepared], network.config), network.device)
    with torch.inference_mode():
        logits, output = network.score(batch)
    maps, map_name = shown_maps(network, batch)
    facts = _facts(run)
    for i, (breast, pixels) in enumerate(prepared):
        gates = gates_of(network, output, i)
        record = _record(breast, pixels, network.config, float(logits[i]), facts) | {
            "gates": gates, "stream_gate": _stream_gate(output.stream_gate, i), "map": map_name,
        }  # fmt: skip
        size = network.config.data.image_size
        own = {key: maps[key].on_image(i, size) for key in pixels if key in maps}
        yield Prediction(record, pixels, own, map_name)


def is_fine(one: SpatialMap) -> bool:
    """Whether a map has at least ``MIN_GRID`` cells a side, enough to localise anything."""
    return min(one.values.shape[1:]) >= MIN_GRID


def shown_maps(network: Network, batch: dict) -> tuple[dict[tuple[str, str], SpatialMap], str]:
    """Return the maps of the picture by (stream, view), and their name.

    They show the finest spatial SeqMoE gate if there is one, else Grad-CAM, else integrated gradients. Maps of fewer
    than ``MIN_GRID`` cells a side are skipped.
    """
    gates = [one for one in forward_maps(network, batch) if one.kind == "gate"]
    fine = [one for one in (*gates, *grad_cam(network, batch)) if is_fine(one)]
    maps = [one for one in fine if one.kind == "gate"] or fine or saliency_maps(network, batch)
    one = finest(maps)
    shown = {(other.stream, other.view): other for other in maps if other.block == one.block}
    meaning = {
        "gate": f"{KINDS['gate']}{one.place}, one value per {getattr(network.config.model.gate, 'scope', 'image')}",
        "grad_cam": "Grad-CAM: features that raise the probability (one value per 32 x 32 pixels)",
        "integrated_gradients": "integrated gradients: influence of pixels on the probability, in either direction",
    }
    return shown, meaning.get(one.kind, KINDS[one.kind])


def gates_of(network: Network, output, i: int) -> dict[str, dict[str, float]]:
    """Return breast ``i``'s SeqMoE gates, ``{"crop CC": {"3.1": value}}``; spatial gates by their mean.

    Blocks have the names that figures show, stage and block, both counted from 1.
    """
    views, found = network.config.model.views, {}
    for stream, blocks in output.gates.items():
        for j, view in enumerate(views):
            values = {
                block_name(*parse_gate_name(name)): float(gate[i, j].float().mean()) for name, gate in blocks.items()
            }
            if values and not any(math.isnan(value) for value in values.values()):
                found[f"{stream} {view}"] = values
    return found


def _stream_gate(gate, i: int) -> dict[str, float] | None:
    """Return the mean weight of each stream in the fusion; None where nothing is gated."""
    if gate is None:
        return None
    crop = float(gate[i].float().mean())
    return {"crop": crop, "whole": 1 - crop}


@cache
def _facts(run: Run) -> dict:
    """Return the values that a run chose on validation, and what identifies the run."""
    (threshold, temperature), environment = run.choices, run.environment
    return {
        "threshold": threshold,
        "temperature": temperature,
        "is_phantom": is_phantom(run),
        "without_crops": cost_of_crops(run),
        "run": {
            "trained_on": trained_on(run),
            "experiment": run.config.experiment, "seed": run.config.seed, "folder": run.folder.name,
            "config": run.config.fingerprint, "training_data": environment.get("data_hash"),
            "commit": environment.get("commit"), "checkpoint": file_hash(run.checkpoint),
        },
    }  # fmt: skip


def _record(breast: GivenBreast, pixels: dict, config: RunConfig, logit: float, facts: dict) -> dict:
    probability = float(expit(logit))
    wanted = [(stream, view) for stream in config.model.streams for view in config.model.views]
    missing = [" ".join(key) for key in wanted if key not in pixels]
    alone = [f"crop {view}" for stream, view in pixels if stream == "crop" and ("whole", view) not in breast.images]
    notes = []
    if alone and config.data.orient:
        how = f"as a {breast.side} breast is displayed" if breast.side else "with the chest wall on the left"
        notes.append(f"{', '.join(alone)}: given without its film, assumed to lie {how}")
    if config.data.crop_context and any(stream == "crop" for stream, _ in breast.images):
        square = f"squares {config.data.crop_context:g} times as wide as the lesion's box is long"
        notes.append(
            f"this network was trained on {square} where there was no official crop; tighter crops are new to it"
        )
    if "crop" in config.model.streams and not any(stream == "crop" for stream, _ in pixels):
        notes.append(f"no crop of the lesion: {facts['without_crops']}; give crops, or the lesion's box with --box-cc "
                     "and --box-mlo")  # fmt: skip
    if facts["is_phantom"]:
        notes.append("no decision: this network was trained on a synthetic phantom and knows nothing of mammograms")
    if unused := [" ".join(key) for key in breast.images if key not in pixels]:
        notes.append(f"not read by this network: {', '.join(unused)}")
    return {
        "research_use_only": NOTICE,
        "breast": breast.name,
        "probability": probability,
        "probability_after_temperature": float(expit(logit / facts["temperature"])),
        "decision": None if facts["is_phantom"] else "malignant" if probability >= facts["threshold"] else "benign",
        "logit": logit,
        **{name: facts[name] for name in ("threshold", "temperature", "run")},
        "images": {
            " ".join(key): {"file": path.name, "sha256": file_hash(path)} for key, path in breast.images.items()
        },
        "missing": missing,
        "notes": notes,
    }


def write_prediction(prediction: Prediction, folder: Path) -> tuple[Path, Path]:
    """Write ``<breast>.json`` and ``<breast>.png``, both or neither; return their paths.

    Raises
    ------
    InputError
        The folder cannot be written, or contains a prediction of another breast, or from other images, under this name.
    """
    record = prediction.record
    name = safe_name(record["breast"])
    paths = folder / f"{name}.json", folder / f"{name}.png"
    picture = io.BytesIO()
    draw_prediction(prediction).savefig(picture, dpi=DPI, format="png")
    with writing_to(paths[0], "give another folder with --out"):
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_another(paths, record)
        earlier = paths[0].read_bytes() if paths[0].is_file() else None
        write_json(paths[0], record)  # first: it refuses what is not a number
        try:
            write_bytes(paths[1], picture.getvalue())
        except OSError:
            if earlier is None:
                paths[0].unlink()
            else:
                write_bytes(paths[0], earlier)
            raise
    return paths


def _refuse_another(paths: tuple[Path, Path], record: dict) -> None:
    """Refuse to replace anything but a prediction of this breast: two patients' files may share a name, ``cc.jpg``."""
    way_out = "give another folder with --out"
    if not paths[0].is_file():
        if paths[1].is_file():
            raise InputError(f"{paths[1]}: exists and is not the picture of an earlier prediction; {way_out}")
        return
    there = read_json(paths[0], f"delete it, or {way_out}")
    if there.get("breast") != record["breast"]:
        raise InputError(f"{paths[0]}: holds {there.get('breast')!r}, not {record['breast']!r}; {way_out}")
    earlier = there.get("images")
    before = {key: one.get("sha256") for key, one in earlier.items()} if isinstance(earlier, dict) else {}
    now = {key: one["sha256"] for key, one in record["images"].items()}
    if any(before[key] != now[key] for key in before.keys() & now.keys()) or not {*before.values()} & {*now.values()}:
        raise InputError(f"{paths[0]}: holds the prediction of other images under this name; delete it, or {way_out}")


def draw_prediction(prediction: Prediction):
    """Return the picture of a prediction: images, maps, probability, gates, notes and the notice."""
    record = prediction.record
    given = dict.fromkeys([*(tuple(name.split()) for name in record["missing"]), *prediction.pixels])
    keys = sorted(given, key=lambda key: (key[0] != "whole", key[1]))
    weights = record["stream_gate"]
    fused = f"stream weights: crop {weights['crop']:.2f}, whole {weights['whole']:.2f}" if weights else ""
    missing = f"not given: {', '.join(record['missing'])}" if record["missing"] else "all images given"
    is_above = record["probability"] >= record["threshold"]
    position = f"{'above' if is_above else 'below'} its threshold {record['threshold']:.2f}"
    lines = [
        f"{record['breast']}: network's probability {record['probability']:.2f}, "
        + (position if record["decision"] else "no decision (trained on a phantom)"),
        f"after temperature {record['temperature']:.2f}: probability {record['probability_after_temperature']:.2f}; "
        + "; ".join(part for part in (fused, missing) if part),
        f"trained on {record['run']['trained_on']}",
        f"run {record['run']['experiment']}/{record['run']['folder']}, config {record['run']['config'][:12]}",
    ]
    return figures.prediction_sheet(
        {key: prediction.pixels.get(key) for key in keys}, prediction.maps, prediction.map_name, record["gates"],
        record["probability"], record["threshold"], lines, record["notes"], NOTICE,
    )  # fmt: skip
