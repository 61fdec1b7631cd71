"""A viewer of gates and maps, breast by breast: with controls in JupyterLab, as a static picture elsewhere.

    from mammo_lib.inference.viewer import explore
    explore(run, collection)

Several runs whose gates differ in scope can be given at once. In a notebook that is executed without a user
(papermill, the book, continuous integration), the same call returns the first picture without a widget.
"""

from __future__ import annotations

import base64
import io
import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch.utils.data import default_collate

from .. import figures
from ..analysis.lesion_shares import LesionShare, shares_in_lesions
from ..analysis.maps import KINDS, SpatialMap, finest, forward_maps, saliency_maps
from ..config import RunConfig
from ..data.boxes import Box, lesion_boxes
from ..data.collection import Collection
from ..data.loader import BreastDataset
from ..errors import InputError
from ..figures.style import block_name
from ..models.network import Network, load_best
from ..models.seqmoe import gate_name, parse_gate_name
from ..runs.records import Run, find_run, part_of
from .predict import gates_of, is_fine
from .provenance import cost_of_crops, run_command, with_weights

DPI = 110
LINE = 80  # characters of a title that fit across the picture
OUTCOMES = {  # label, called malignant
    "true positive": (1, True),
    "false negative": (1, False),
    "false positive": (0, True),
}
LIVE = ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG")  # set in kernels started by an interactive front end


@dataclass(frozen=True)
class Choice:
    """The state of the controls; ``block`` is empty for maps that belong to no block."""

    scope: str
    breast: str
    stream: str
    view: str
    kind: str
    block: str = ""


@dataclass(frozen=True)
class Lens:
    """One run and the breasts to view: ``dataset`` contains their pixels, ``cohort`` their identities."""

    run: Run
    network: Network
    dataset: BreastDataset
    cohort: pd.DataFrame
    boxes: dict[tuple[str, str], Box]
    split: str = "validation"

    def cases(self) -> dict[str, str]:
        """Return the most certain breast of each of ``OUTCOMES`` that these breasts have, by its name."""
        called = self.cohort["probability"] >= self.cohort["threshold"]
        certainty = (self.cohort["probability"] - self.cohort["threshold"]).abs()
        found = {}
        for name, (label, decision) in OUTCOMES.items():
            own = certainty[(self.cohort["label"] == label) & (called == decision)]
            if len(own):
                found[name] = self.cohort.loc[own.idxmax(), "sample_id"]
        return found

    def shares(self) -> dict[str, LesionShare]:
        """Test which maps over whole views are brighter inside the lesions of these breasts."""
        return shares_in_lesions(self.network, self.dataset, self.cohort["sample_id"].tolist(), self.boxes)

    def breast(self, name: str) -> BreastView:
        """Return this network's view of one breast."""
        row = int(np.flatnonzero(self.cohort["sample_id"] == name)[0])
        item = default_collate([self.dataset[row]])
        with torch.inference_mode():
            output = self.network(item)
        images = {
            (stream, view): item["images"][stream][0, j, 0].numpy()
            for stream in self.network.model.streams
            for j, view in enumerate(self.network.config.model.views)
        }
        maps = forward_maps(self.network, item) + saliency_maps(self.network, item)
        return BreastView(images, tuple(maps), gates_of(self.network, output, 0))


@dataclass(frozen=True)
class BreastView:
    """One breast in one network: prepared images by (stream, view), maps (batches of one), gates by input and block."""

    images: dict[tuple[str, str], np.ndarray]
    maps: tuple[SpatialMap, ...]
    gates: dict[str, dict[str, float]]

    def kinds(self, stream: str, view: str) -> dict[str, np.ndarray]:
        """Return the finest map of every kind over one image, (size, size), by the kind's name in words.

        Maps of fewer than ``MIN_GRID`` cells a side are left out, as in a prediction's picture.
        """
        image, own = self.images[stream, view], {}
        for one in self.maps:
            if (one.stream, one.view) == (stream, view) and is_fine(one):
                own.setdefault(one.kind, []).append(one)
        return {KINDS[kind]: finest(maps).on_image(0, image.shape) for kind, maps in own.items()}


@dataclass(frozen=True)
class Viewer:
    """The output in a notebook: controls (``box``) in a live notebook, otherwise a picture (``box`` is None)."""

    still: bytes = field(repr=False)
    box: object | None

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        controls = self.box._repr_mimebundle_() if self.box is not None else {}
        return {
            "text/plain": "a viewer of gates and maps",
            **controls,
            "image/png": base64.b64encode(self.still).decode(),
        }


def explore(
    runs: Run | Sequence[Run], collection: Collection, split: str = "validation", *, is_live: bool | None = None
) -> Viewer:
    """Return a viewer of a run, or of runs of different gate scopes: breast, stream, view, map, stage and block.

    With ``is_live`` None, a live notebook is detected automatically. Breasts are ordered by probability.

    Raises
    ------
    InputError
        A run's weights are missing (the message says how to create them), or its test set has not been opened.
    """
    lenses = {}
    for run in [runs] if isinstance(runs, Run) else runs:
        lens = open_lens(run, collection, split)
        lenses[getattr(lens.network.config.model.gate, "scope", "image")] = lens
    seen = lru_cache(maxsize=16)(lambda scope, breast: lenses[scope].breast(breast))
    draw = partial(_draw, lenses, seen)
    still = as_png(draw(first_choice(lenses, seen)))
    live = any(name in os.environ for name in LIVE) if is_live is None else is_live
    return Viewer(still, _controls(lenses, seen, draw) if live else None)


def open_lens(run: Run, collection: Collection, split: str = "validation") -> Lens:
    """Open a run's network and the breasts of ``validation``, ``out_of_fold`` or, once it has been opened, ``test``.

    Breasts whose images the collection lacks, all but a few in a sample, are left out.
    """
    run = with_weights(run)
    network = load_best(run).cpu()
    if split == "test" and not run.is_evaluated:
        raise InputError(f"{run.folder}: the test set has not been opened for this run; use split='validation'")
    prepared = collection.prepare("test" if split == "test" else "train", *run.config.inputs)
    known = part_of(run.predictions, split).set_index("sample_id")
    if known.empty:
        others = ", ".join(sorted(run.predictions["split"].unique()))
        raise InputError(f"{run.folder}: no predictions of split {split!r}; it has {others}: give split=...")
    cohort = prepared.cohort[prepared.cohort["sample_id"].isin(known.index)].reset_index(drop=True)
    cohort = cohort.assign(
        split=split, probability=cohort["sample_id"].map(known["probability"]), threshold=known["threshold"].iloc[0]
    ).sort_values("probability", ascending=False, ignore_index=True)
    # Sources find files by the official split; a fold calls its breasts validation.
    official = prepared.cohort[prepared.cohort["sample_id"].isin(cohort["sample_id"])]
    boxes = lesion_boxes(official, collection.source, run.config.data)
    return Lens(run, network, BreastDataset(prepared, cohort), cohort, boxes, split)


def lens_of(config: RunConfig, collection: Collection, profile: str) -> tuple[Lens | None, str]:
    """Return a run's network with its validation breasts; without weights, None and how to create them."""
    run = find_run(config, collection.data_hash("train", *config.inputs))
    if run is None:
        return (
            None,
            f"{config.experiment}, seed {config.seed}: not trained here; run `{run_command(config, profile)}`",
        )
    try:
        return open_lens(run, collection), ""
    except InputError as error:
        return None, str(error)


def first_choice(lenses: dict[str, Lens], seen: Callable) -> Choice:
    """Return the first view: the breast with the highest probability, whole, with a spatial gate if there is one."""
    scope = next((name for name in lenses if name != "image"), next(iter(lenses)))
    lens = lenses[scope]
    breast, model = lens.cohort["sample_id"].iloc[0], lens.network.config.model
    maps = seen(scope, breast).maps
    stream, view = ("whole" if "whole" in model.streams else model.streams[0]), model.views[0]
    own = [one for one in maps if (one.stream, one.view) == (stream, view)]
    kind = next(kind for kind in KINDS if any(one.kind == kind for one in own))
    best = finest([one for one in own if one.kind == kind])
    return Choice(scope, breast, stream, view, best.kind, best.block)


def _draw(lenses: dict[str, Lens], seen: Callable, choice: Choice) -> Figure:
    """Return the picture of a choice."""
    breast, cohort = seen(choice.scope, choice.breast), lenses[choice.scope].cohort
    row = cohort[cohort["sample_id"] == choice.breast].iloc[0]
    wanted = (choice.kind, choice.stream, choice.view, choice.block)
    found = next((one for one in breast.maps if (one.kind, one.stream, one.view, one.block) == wanted), None)
    image = breast.images[choice.stream, choice.view]
    is_there = image.max() > 0
    values = None if found is None or not is_there else found.on_image(0, image.shape)
    box = lenses[choice.scope].boxes.get((choice.breast, choice.view)) if choice.stream == "whole" else None
    called = "called malignant" if row["probability"] >= row["threshold"] else "called benign"
    title = (
        f"{choice.breast}: {'malignant' if row['label'] else 'benign'}, {called} "
        f"({row['probability']:.2f}, threshold {row['threshold']:.2f})"
    )
    crops = [one.max() > 0 for (stream, _), one in breast.images.items() if stream == "crop"]
    if crops and not any(crops):
        cost = cost_of_crops(lenses[choice.scope].run)
        title = f"{title}\n{textwrap.fill(f'no crop of the lesion: {cost}', LINE)}"
    name = KINDS[choice.kind] + (found.place if found else "")
    block = block_name(*parse_gate_name(choice.block)) if choice.block else ""
    return figures.gate_view(
        image if is_there else None, values, name, box, breast.gates, f"{choice.stream} {choice.view}", block, title,
    )  # fmt: skip


def as_png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, bbox_inches=None)
    return buffer.getvalue()


def _controls(lenses: dict[str, Lens], seen: Callable, draw: Callable):
    """Return the controls and the picture that they update."""
    import ipywidgets

    start = first_choice(lenses, seen)
    model = lenses[start.scope].network.config.model
    picture = ipywidgets.Image(value=as_png(draw(start)), format="png")
    menus = {
        "scope": ipywidgets.Dropdown(options=list(lenses), value=start.scope, description="gate scope"),
        "breast": ipywidgets.Dropdown(options=_breasts(lenses[start.scope]), value=start.breast, description="breast"),
        "stream": ipywidgets.Dropdown(options=list(model.streams), value=start.stream, description="stream"),
        "view": ipywidgets.Dropdown(options=list(model.views), value=start.view, description="view"),
        "kind": ipywidgets.Dropdown(description="map"),
        "stage": ipywidgets.Dropdown(description="stage"),
        "block": ipywidgets.Dropdown(description="block"),
    }

    def settle(wanted: Choice | None = None) -> None:
        """Update the options for the chosen breast and network, keep the selection if possible, and draw."""
        scope, breast = menus["scope"].value, menus["breast"].value
        own = [
            one
            for one in seen(scope, breast).maps
            if (one.stream, one.view) == (menus["stream"].value, menus["view"].value)
        ]
        kind = _offer(menus["kind"], {KINDS[one.kind]: one.kind for one in own}, wanted and wanted.kind)
        places = [parse_gate_name(one.block) for one in own if one.kind == kind and one.block]
        at = parse_gate_name(wanted.block) if wanted and wanted.block else (None, None)
        stage = _offer(menus["stage"], {str(stage): stage for stage, _ in places}, at[0])
        block = _offer(menus["block"], {str(j + 1): j for above, j in places if above == stage}, at[1])
        name = gate_name(stage, block) if places else ""
        picture.value = as_png(draw(Choice(scope, breast, menus["stream"].value, menus["view"].value, kind, name)))

    def follow(_) -> None:
        # Setting a menu's options would call this again in the middle of an update.
        for menu in menus.values():
            menu.unobserve(follow, "value")
        settle()
        for menu in menus.values():
            menu.observe(follow, "value")

    settle(start)
    for menu in menus.values():
        menu.observe(follow, "value")
    shown = [menu for name, menu in menus.items() if name != "scope" or len(lenses) > 1]
    return ipywidgets.VBox([ipywidgets.HBox(shown, layout={"flex_flow": "row wrap"}), picture])


def _offer(menu, options: dict[str, object], wanted: object) -> object:
    """Set a menu's options and its value: the wanted one, else the current one, else the last."""
    had = menu.value if wanted is None else wanted
    value = had if had in options.values() else (list(options.values()) or [None])[-1]
    menu.options = list(options.items())
    menu.value, menu.disabled = value, not options
    return value


def _breasts(lens: Lens) -> list[tuple[str, str]]:
    return [
        (f"{row.sample_id}  {'malignant' if row.label else 'benign'}  {row.probability:.2f}", row.sample_id)
        for row in lens.cohort.itertuples()
    ]
