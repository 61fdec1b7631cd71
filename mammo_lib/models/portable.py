"""Networks outside this library: an ONNX file of standard operators, or a program of ``torch.export``.

Both use the scan of :mod:`mammo_lib.ops.scan_chunked`, so neither needs ``mammo_lib`` to run.

| network | inputs | free sizes |
|---|---|---|
| MambaVision | ``images`` (batch, channels, height, width), normalised | batch; with ``is_dynamic`` height and width |
| Mammo-Mamba | the views of every stream, then for every stream which views exist | batch |

The inputs of a stream are ``crop`` (batch, views, 1, height, width), grey, in [0, 1], and ``crop_present`` (batch,
views), bool; those of the other stream are called ``whole``.
The side of a window is part of the graph: the scan of a window is written out for its number of tokens. The windows of
a trained Mammo-Mamba are fitted to its image size, so its height and width stay fixed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..errors import InputError, writing_to
from ..files import writable_file
from .mambavision import MambaMixer, MambaVision
from .mammo_mamba import MammoMamba, log_odds
from .scoring import upside_down

FORMATS = {"onnx": ".onnx", "torch-export": ".pt2"}
OPSETS = range(18, 24)  # LayerNormalization, and Pad with axes; as far as PyTorch's exporter goes
OPSET = 20  # the first with Gelu
EXAMPLE_BATCH = 2
LARGEST_FILE = 2**31 - 2**20  # bytes; ONNX files end at 2 GiB, and larger weights need a second file


class Scoring(nn.Module):
    """A Mammo-Mamba as a function of tensors: its logit of malignancy, as ``mammo predict`` computes it.

    The tensors are the images of every stream, in the order of ``network.streams``, then which views of each exist.
    """

    def __init__(self, network: MammoMamba, *, flip_averaging: bool):
        super().__init__()
        self.network, self.flip_averaging = network, flip_averaging
        self.train(network.training)

    def forward(self, *tensors: Tensor) -> Float[Tensor, " batch"]:
        """Return the logit of malignancy, averaged over flips if the network's config says so; NaN without any view."""
        streams = self.network.streams
        images = dict(zip(streams, tensors[: len(streams)], strict=True))
        present = dict(zip(streams, tensors[len(streams) :], strict=True))
        has_view = torch.cat(list(present.values()), dim=1).any(dim=1)
        return self._mean_log_odds(images, present).where(has_view, torch.nan)

    def _mean_log_odds(self, images: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        if not self.flip_averaging:
            return self._log_odds(images, present)
        # Both directions are one batch, so that every layer is in the graph once.
        turned = upside_down({"images": images})["images"]
        both = {stream: torch.cat([images[stream], turned[stream]]) for stream in images}
        passes = self._log_odds(both, {stream: torch.cat([one, one]) for stream, one in present.items()})
        return passes.unflatten(0, (2, -1)).mean(dim=0)

    def _log_odds(self, images: Mapping[str, Tensor], present: Mapping[str, Bool[Tensor, "batch views"]]) -> Tensor:
        encoders = self.network.encoders.items()
        embeddings = {name: encoder.embed_all(images[name], present[name]) for name, encoder in encoders}
        return log_odds(self.network.decide(embeddings, present).logits)


def export_backbone(
    network: MambaVision, path: str | Path, *, to: str = "onnx", size: tuple[int, int] = (224, 224),
    is_dynamic: bool = False, opset: int = OPSET,
) -> Path:  # fmt: skip
    """Write a MambaVision to a file and return its path.

    ``size``: height and width of the images; with ``is_dynamic`` the file accepts any other size too.

    Raises
    ------
    InputError
        The format or the opset is not offered, a package is missing, or the file cannot be written.
    """
    channels = network.patch_embed.conv_down[0].in_channels
    example = torch.zeros(EXAMPLE_BATCH, channels, *size)
    free = ("batch", None, "height", "width") if is_dynamic else ("batch",)
    name = "logits" if network.num_classes else "features"
    return _export(network, {"images": (example, free)}, name, path, to, opset)


def export_mammo_mamba(
    network: MammoMamba, path: str | Path, *, image_size: tuple[int, int], flip_averaging: bool, to: str = "onnx",
    opset: int = OPSET, facts: Mapping[str, object] | None = None,
) -> Path:  # fmt: skip
    """Write a Mammo-Mamba (see :class:`Scoring`) to a file and return its path; ``facts`` are written into it.

    Raises
    ------
    InputError
        As :func:`export_backbone`.
    """
    shape, inputs = (EXAMPLE_BATCH, network.n_views), {}
    for stream in network.streams:  # separate tensors: torch.export would take a shared one for a single input
        inputs[stream] = torch.zeros(*shape, 1, *image_size), ("batch",)
    for stream in network.streams:
        inputs[f"{stream}_present"] = torch.ones(shape, dtype=torch.bool), ("batch",)
    scoring = Scoring(network, flip_averaging=flip_averaging)
    return _export(scoring, inputs, "logit", path, to, opset, facts)


def _export(
    network: nn.Module, inputs: Mapping[str, tuple[Tensor, Sequence[str | None]]], output: str, path: str | Path,
    to: str, opset: int, facts: Mapping[str, object] | None = None,
) -> Path:  # fmt: skip
    """Write a network of tensors, given an example and the names of the free axes for every input."""
    check_choices(to, opset)
    path, examples = Path(path), tuple(example for example, _ in inputs.values())
    axes = [{i: name for i, name in enumerate(free) if name} for _, free in inputs.values()]
    facts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in (facts or {}).items()}
    with _whole_files(path) as partial:
        program = capture(network, examples, tuple(dict.fromkeys(one, Dim.DYNAMIC) for one in axes))
        if to == "onnx":
            write_onnx(program, partial, opset=opset, inputs=[*inputs], output=output, axes=axes, facts=facts)
        else:
            # Written here: on a full disk PyTorch's own writer ends the process.
            content = io.BytesIO()
            torch.export.save(program, content, extra_files=facts)
            partial.write_bytes(content.getbuffer())
    return path


def check_choices(to: str, opset: int) -> None:
    """Refuse a format or an opset that is not offered, and ONNX without its packages.

    Raises
    ------
    InputError
        One of them cannot be used here.
    """
    if to not in FORMATS:
        raise InputError(f"--to {to!r}: choose one of {', '.join(FORMATS)}")
    if to == "onnx" and opset not in OPSETS:
        raise InputError(f"--opset {opset}: must lie in [{OPSETS[0]}, {OPSETS[-1]}], the versions that can be written")
    if to == "onnx":
        try:
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise InputError(f"{error.name} is not installed: pip install -c constraints.txt -e '.[export]'") from None


def capture(network: nn.Module, examples: tuple[Tensor, ...], free: tuple[Mapping[int, Dim], ...]) -> ExportedProgram:
    """Return a network in evaluation as a program of standard operators, without branches on free sizes."""
    from torch.fx.experimental import _config

    was_training, free = network.training, (free,) if isinstance(network, Scoring) else free  # one argument there
    # Traced outside inference mode, as the parameters were made. By default torch.export specialises a size of 1.
    modes = torch.inference_mode(False), torch.no_grad(), _config.patch(backed_size_oblivious=True)
    with contextlib.ExitStack() as stack:
        for mode in (*modes, scanning_with(network, "chunked")):
            stack.enter_context(mode)
        try:
            return torch.export.export(network.eval(), tuple(one.clone() for one in examples), dynamic_shapes=free)
        finally:
            network.train(was_training)


@contextlib.contextmanager
def scanning_with(network: nn.Module, backend: str) -> Iterator[None]:
    """Let every mixer of a network use a backend of the scan (:func:`mammo_lib.ops.selective_scan`)."""
    before = {mixer: mixer.backend for mixer in network.modules() if isinstance(mixer, MambaMixer)}
    for mixer in before:
        mixer.backend = backend
    try:
        yield
    finally:
        for mixer, own in before.items():
            mixer.backend = own


def write_onnx(
    program: ExportedProgram, path: Path, *, opset: int = OPSET, inputs: Sequence[str] | None = None,
    output: str | None = None, axes: Sequence[Mapping[int, str]] = (), facts: Mapping[str, str] | None = None,
) -> int:  # fmt: skip
    """Write a program as ONNX and return the number of its nodes; ``axes`` name the free axes of every input.

    Raises
    ------
    InputError
        It needs an operator that this opset lacks.
    """
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(None):  # torch's own warnings
        # Without the exporter's optimiser: it takes minutes for what every runtime repeats when it loads the file.
        written = torch.onnx.export(
            program, dynamo=True, opset_version=opset, optimize=False, verbose=False, input_names=inputs,
            output_names=output and [output],
        )  # fmt: skip
    model = written.model
    if model.opset_imports[""] != opset or {node.domain for node in model.graph} != {""}:
        raise InputError(f"--opset {opset}: this network cannot be written in it; choose another")
    for value, names in zip(model.graph.inputs, axes, strict=False):
        for axis, name in names.items():
            value.shape[axis] = name
    model.graph.outputs[0].shape[0] = "batch"
    model.metadata_props.update(facts or {})
    size = sum(one.const_value.nbytes for one in model.graph.initializers.values())
    written.save(path, external_data=size > LARGEST_FILE)
    return len(model.graph)


@contextlib.contextmanager
def _whole_files(path: Path) -> Iterator[Path]:
    """Yield a place beside ``path`` whose files are moved there when they are complete."""
    if path.is_dir():
        raise InputError(f"{path}: a folder; give the name of a file with --out")
    remedy = "give another file with --out"
    with writing_to(path, remedy):
        path = writable_file(path)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export") as folder:
            yield Path(folder) / path.name
            for file in Path(folder).iterdir():
                os.replace(file, path.parent / file.name)
