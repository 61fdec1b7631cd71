"""Official MambaVision checkpoints: fetch them, read them strictly, adapt their stem to grey images.

The weights are NVIDIA's, under CC-BY-NC-SA-4.0; they are never shipped with this project.
"""

from __future__ import annotations

import copy
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..config import is_rehearsal
from ..config.checkpoints import OFFICIAL, weights_folder
from ..errors import InputError
from ..files import file_hash, read_json, read_text, write_bytes
from .mambavision import VARIANTS, MambaVision, create_mambavision

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RANDOM_MARK = "random_weights"  # in a file that was made for a rehearsal
SHOWN_KEYS = 5
SUFFIXES = (".pth.tar", ".pth", ".safetensors")
LICENCE_NOTICE = (
    "MambaVision weights (NVIDIA) are licensed CC-BY-NC-SA-4.0: non-commercial use, share alike, attribution. "
    "Hatamizadeh and Kautz, MambaVision, arXiv 2407.08083."
)


def load_checkpoint(model: MambaVision, path: str | Path, *, new: Iterable[str] = ()) -> MambaVision:
    """Load an official checkpoint (``.pth.tar``, ``.pth`` or ``.safetensors``) strictly, in place.

    A network without a head (``num_classes=0``) ignores the checkpoint's head, and modules named in ``new`` are
    unchanged; any other difference is an error.

    Raises
    ------
    InputError
        The file cannot be read, or keys are missing, unexpected or of another shape: the first few are named.
    """
    state = read_checkpoint(path)
    if isinstance(model.head, nn.Identity):
        state = {key: value for key, value in state.items() if not key.startswith("head.")}
    kept = tuple(f"{name}." for name in new)
    own = {key: value for key, value in model.state_dict().items() if kept and key.startswith(kept)}
    state = {key: value for key, value in state.items() if not (kept and key.startswith(kept))} | own
    return _load(model, state, path)


def _load(model: MambaVision, state: dict[str, Tensor], path: str | Path) -> MambaVision:
    if differences := list_differences(model.state_dict(), state):
        raise InputError(f"{path}: does not fit this network: {'; '.join(differences)}")
    model.load_state_dict(state, assign=any(one.is_meta for one in model.parameters()))
    return model


def load_pretrained(source: str | Path, *, window_sizes: Sequence[int] | None = None) -> MambaVision:
    """Return the network of a checkpoint, in evaluation mode: variant, channels and classes are read from its tensors.

    ``source`` is a file, or a repository of the Hugging Face hub: an official one (``nvidia/MambaVision-T-1K``), which
    is kept where ``mammo weights`` puts it, or any other with a ``model.safetensors``. Windows have no weights: the
    variant's are used unless ``window_sizes`` says otherwise.

    Raises
    ------
    InputError
        There is no such file or repository, or it does not hold a MambaVision.
    """
    path = find_pretrained(str(source))
    state = read_checkpoint(path)
    variant = variant_of(state)
    if variant is None:
        raise InputError(f"{path}: not a MambaVision; widths and depths must be those of {', '.join(VARIANTS)}")
    classes = len(state["head.weight"]) if "head.weight" in state else 0
    channels = state["patch_embed.conv_down.0.weight"].shape[1]
    network = create_mambavision(variant, in_chans=channels, num_classes=classes, window_sizes=window_sizes)
    return _load(network, state, path).eval()


def variant_of(state: Mapping[str, Tensor]) -> str | None:
    """Return the variant with the widths and depths of a checkpoint, or None."""
    stems = [state.get(f"patch_embed.conv_down.{number}.weight") for number in (0, 3)]
    if any(one is None or one.ndim != 4 for one in stems):
        return None
    blocks = {tuple(key.split(".")[1:4:2]) for key in state if re.match(r"levels\.\d\.blocks\.\d+\.", key)}
    depths = tuple(sum(stage == str(i) for stage, _ in blocks) for i in range(4))
    numbers = (len(stems[1]), len(stems[0]), depths)
    return next((name for name, one in VARIANTS.items() if (one.dim, one.in_dim, one.depths) == numbers), None)


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Return a checkpoint's tensors under the official names, without wrappers and prefixes."""
    path = Path(path)
    try:
        held = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint; `mammo weights VARIANT` downloads one") from None
    except Exception as error:  # the two readers raise a dozen types for a damaged or refused file
        raise InputError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); give a file of PyTorch or safetensors that "
            "holds tensors alone, or download it again"
        ) from None
    held = held if isinstance(held, Mapping) else {}
    if RANDOM_MARK in held and not is_rehearsal():
        raise InputError(f"{path}: random weights of a rehearsal; `mammo weights VARIANT` downloads official ones")
    state = unwrapped(held)
    if not state:
        raise InputError(f"{path}: not a readable checkpoint (it contains no named tensors)")
    return state


def _read_safetensors(path: Path) -> dict:
    """Return the tensors, and the file's metadata."""
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}) | {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def unwrapped(held: Mapping) -> dict[str, Tensor]:
    """Return the tensors in what a checkpoint file holds, under the official names."""
    wrappers = ("state_dict_ema", "model_ema", "state_dict", "model")  # averaged weights first: timm evaluates these
    held = next((held[name] for name in wrappers if isinstance(held.get(name), Mapping)), held)
    return _without_prefix({key: one for key, one in held.items() if isinstance(key, str) and isinstance(one, Tensor)})


def read_torch(path: Path) -> object:
    """Return the tensors and plain values that ``torch.save`` wrote; anything else raises and is not executed."""
    with warnings.catch_warnings(action="ignore"):  # about an unknown version of pickle; the error follows
        return torch.load(path, map_location="cpu", weights_only=True)


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that wrappers of networks add to every name."""
    prefixes = ("module.", "model.", "encoder.", "_orig_mod.")  # DataParallel, Lightning, torch.compile; in any order
    while state and (prefix := next((one for one in prefixes if all(key.startswith(one) for key in state)), None)):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    if any(key.startswith("encoder.") for key in state):
        state = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    return state


def list_differences(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """List the first missing, unexpected and mis-shaped keys, and the number of further ones."""
    groups = {
        "missing": [key for key in wanted if key not in found],
        "unexpected": [key for key in found if key not in wanted],
        "other shape": [
            f"{key} (network {tuple(wanted[key].shape)}, file {tuple(found[key].shape)})"
            for key in wanted
            if key in found and wanted[key].shape != found[key].shape
        ],
    }
    return [f"{name}: {_listed(keys)}" for name, keys in groups.items() if keys]


def _listed(keys: list[str]) -> str:
    shown = ", ".join(keys[:SHOWN_KEYS])
    return shown if len(keys) <= SHOWN_KEYS else f"{shown} and {len(keys) - SHOWN_KEYS} more"


def fold_grey_stem(model: MambaVision) -> MambaVision:
    """Return a copy that takes grey images in [0, 1], (batch, 1, height, width), normalisation folded in.

    For grey x the first convolution of the normalised three channels is sum_c W_c (x - m_c) / s_c. The factor is
    folded into a one-channel kernel, the constant into the running mean of the next BatchNorm. This is exact except at
    the border of the image, where zero padding means the mean in one network and black in the other.

    >>> from mammo_lib.models import create_mambavision
    >>> fold_grey_stem(create_mambavision("nano")).patch_embed(torch.zeros(1, 1, 64, 64)).shape
    torch.Size([1, 16, 16, 16])
    """
    folded = copy.deepcopy(model)
    convolution, norm = folded.patch_embed.conv_down[0], folded.patch_embed.conv_down[1]
    if convolution.in_channels != 3:
        raise ValueError(f"a stem of 3 channels is folded, this one has {convolution.in_channels}")
    mean, std = (torch.tensor(v).view(1, 3, 1, 1).to(convolution.weight) for v in (IMAGENET_MEAN, IMAGENET_STD))
    scaled = convolution.weight.detach() / std
    grey = nn.Conv2d(1, convolution.out_channels, 3, 2, 1, bias=False)
    grey.weight = nn.Parameter(scaled.sum(dim=1, keepdim=True))
    folded.patch_embed.conv_down[0] = grey
    norm.running_mean += (scaled * mean).sum(dim=(1, 2, 3))
    return folded


def find_pretrained(source: str) -> Path:
    """Return the file of a checkpoint: ``source`` itself, or what the Hugging Face hub has under this name.

    Raises
    ------
    InputError
        There is no such file, and ``source`` is not the name of a repository or cannot be downloaded.
    """
    if Path(source).is_file():
        return Path(source)
    variant = next((name for name, one in read_json(OFFICIAL).items() if one["repository"] == source), None)
    if variant:
        folder = weights_folder()
        path = folder / read_json(OFFICIAL)[variant]["file"]
        return path if path.is_file() else fetch_weights(variant, folder)
    if re.fullmatch(r"[\w-]+/[\w.-]+", source) and not source.endswith(SUFFIXES):
        return _download(source, "model.safetensors")
    raise InputError(
        f"{source}: no such checkpoint; give a file ({', '.join(SUFFIXES)}) or a repository of the Hugging Face hub"
    )


def fetch_weights(variant: str, folder: str | Path) -> Path:
    """Download a variant's official checkpoint from the Hugging Face hub, show its licence, record its checksum.

    Raises
    ------
    InputError
        There is no connection, the variant has no official weights, or the file differs from the recorded checksum.
    """
    record = read_json(OFFICIAL)
    if variant not in record:
        raise InputError(f"no official weights for {variant!r}: choose one of {', '.join(record)}")
    print(LICENCE_NOTICE)
    path = Path(folder) / record[variant]["file"]
    fetched = _download(record[variant]["repository"], record[variant]["file"], local_dir=path.parent / ".incoming")
    check_recorded(variant, fetched, path.with_name(f"{path.name}.sha256"))
    os.replace(fetched, path)  # only a checked file gets the name that :func:`find_checkpoint` looks for
    return path


def _download(repository: str, file: str, **options) -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise InputError("huggingface-hub is not installed: pip install -e '.[data]'") from None
    try:
        return Path(hf_hub_download(repository, file, **options))
    except Exception as error:  # without a connection the hub's client raises many types
        raise InputError(
            f"{repository}: could not be downloaded ({type(error).__name__}); "
            f"without a connection, put {file} there yourself and give its path"
        ) from None


def check_recorded(variant: str, path: Path, beside: Path) -> None:
    """Compare a file with the checksum of its variant: the project's or, if there is none, that of the first download.

    The checksum of the first download is stored in the file ``beside``.
    """
    found = file_hash(path)
    known = read_json(OFFICIAL)[variant]["sha256"] or (read_text(beside).strip() if beside.is_file() else None)
    if known and known != found:
        raise InputError(f"{path}: SHA-256 is {found}, recorded is {known}; download the file again")
    if not known:
        write_bytes(beside, f"{found}\n".encode())
