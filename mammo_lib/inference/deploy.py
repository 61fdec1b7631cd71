"""Export of a trained run, or of a MambaVision variant by name, to a file that runs without this library."""

from __future__ import annotations

from pathlib import Path

from ..config import MATERIAL
from ..config.checkpoints import find_checkpoint
from ..errors import InputError
from ..models.mambavision import LITE, VARIANTS, create_mambavision
from ..models.network import load_best
from ..models.portable import FORMATS, OPSET, check_choices, export_backbone, export_mammo_mamba
from ..models.weights import load_pretrained, variant_of
from ..runs.records import Run
from .provenance import NOTICE, trained_on, with_weights

RANDOM = "random"
SMALLEST, LARGEST = 32, 4096  # pixels a side


def export(
    name: str, path: Path | None = None, *, to: str = "onnx", opset: int = OPSET, weights: str | None = None,
    size: int | None = None, is_dynamic: bool = False,
) -> Path:  # fmt: skip
    """Write the network of a run's folder or of a variant to a file and return its path.

    The default file is ``<name>.onnx`` or ``<name>.pt2`` in the current folder. ``weights``, ``size`` and
    ``is_dynamic`` apply only to a variant (:func:`export_variant`).

    Raises
    ------
    InputError
        There is no such run or variant, an option does not apply to it, or the file cannot be written.
    """
    check_choices(to, opset)
    others = {ending for form, ending in FORMATS.items() if form != to}
    if path is not None and path.suffix in others:
        raise InputError(f"--out {path}: that is the ending of another format; --to {to} makes {FORMATS[to]} files")
    if path is not None and path.is_file() and path.suffix != FORMATS[to]:
        raise InputError(f"--out {path}: exists, and its ending is not {FORMATS[to]}; give another file")
    if name in VARIANTS:
        return export_variant(
            name, path or Path(name + FORMATS[to]), weights=weights, size=224 if size is None else size,
            is_dynamic=is_dynamic, to=to, opset=opset,
        )  # fmt: skip
    folder = Path(name) if Path(name).exists() else MATERIAL / name
    if not folder.is_dir():
        raise InputError(f"{name}: neither the folder of a run nor a variant; variants are {', '.join(VARIANTS)}")
    if weights or size is not None or is_dynamic:
        raise InputError(
            f"{name}: --weights, --size and --dynamic are for variants; a run has its own weights, and its windows are "
            "fitted to its image size"
        )
    return export_run(Run(folder), path or Path(folder.resolve().name + FORMATS[to]), to=to, opset=opset)


def export_variant(
    variant: str, path: Path, *, weights: str | None, size: int, is_dynamic: bool, to: str = "onnx", opset: int = OPSET
) -> Path:
    """Write a MambaVision with the weights of a file, ``official`` ones, or ``random`` ones.

    Raises
    ------
    InputError
        The weights are not named, cannot be read or belong to another variant, or ``size`` is out of range.
    """
    if variant in LITE:
        raise InputError(f"{variant}: not a backbone by itself: its first stages are EfficientNet's; export its run")
    if weights is None:
        raise InputError(f"{variant}: name its weights with --weights: a file, official, or {RANDOM} to try it out")
    if not SMALLEST <= size <= LARGEST:
        raise InputError(f"--size {size}: must lie in [{SMALLEST}, {LARGEST}] pixels")
    if weights == RANDOM:
        network = create_mambavision(variant)
    else:
        file = find_checkpoint(variant, weights)
        network = load_pretrained(file)
        if (found := variant_of(network.state_dict())) != variant:
            raise InputError(f"{file}: holds the weights of {found}, not of {variant}")
    return export_backbone(network, path, to=to, size=(size, size), is_dynamic=is_dynamic, opset=opset)


def export_run(run: Run, path: Path, *, to: str = "onnx", opset: int = OPSET) -> Path:
    """Write a trained run's network, with what is needed to read its output beside the logit.

    Raises
    ------
    InputError
        The run has no checkpoint here, or its network is one that cannot be exported.
    """
    run = with_weights(run)
    network, config = load_best(run).cpu(), run.config
    threshold, temperature = run.choices
    facts = {
        "notice": NOTICE, "trained_on": trained_on(run), "config": config.fingerprint,
        "views": list(config.model.views), "streams": list(network.model.streams),
        "image_size": list(config.data.image_size), "threshold": threshold, "temperature": temperature,
    }  # fmt: skip
    return export_mammo_mamba(
        network.model, path, image_size=config.data.image_size, flip_averaging=config.train.flip_averaging, to=to,
        opset=opset, facts=facts,
    )  # fmt: skip
