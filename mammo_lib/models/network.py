"""The network of a run: built and scored as its config says, its weights read from the run's checkpoint.

Nothing here trains: a finished network is used without Lightning, whose import takes seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from ..config import RunConfig
from ..errors import InputError
from ..runs.manifest import WAY_OUT
from ..runs.predictions import as_predictions
from ..runs.records import Run
from .mambavision import VARIANTS
from .mammo_mamba import MammoMambaOutput, Overrides, build_model, without_weights
from .scoring import score, score_passes
from .weights import list_differences, read_torch


class Network(nn.Module):
    """Mammo-Mamba with the settings by which its config scores breasts. ``model`` is the network itself."""

    def __init__(self, config: RunConfig):
        super().__init__()
        self.config, self.model = config, build_model(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(self, batch: dict) -> MammoMambaOutput:
        """Return the model's output for a batch."""
        return self.model(batch)

    def passes(self, batch: dict, overrides: Overrides | None = None) -> list[MammoMambaOutput]:
        """Return the output for the unchanged images and, if the config averages flips, for the upside-down images."""
        return score_passes(self.model, batch, flip_averaging=self.config.train.flip_averaging, overrides=overrides)

    def score(
        self, batch: dict, overrides: Overrides | None = None
    ) -> tuple[Float[Tensor, " batch"], MammoMambaOutput]:
        """Return a batch's logits of malignancy and the output for the unchanged images."""
        return score(self.model, batch, flip_averaging=self.config.train.flip_averaging, overrides=overrides)


def load_best(run: Run) -> Network:
    """Return the run's network with its best weights on validation, in eval mode.

    Raises
    ------
    InputError
        The checkpoint is missing or damaged, belongs to another network, or contains weights that are not finite.
    """
    model = run.config.model
    is_whole = model.backbone in VARIANTS and not model.encoder.has_weights and run.checkpoint.suffix == ".ckpt"
    with torch.device("meta") if is_whole else contextlib.nullcontext():  # every value comes from the checkpoint
        network = Network(inference_config(run.config))
    own = network.state_dict()
    frozen = frozen_prefixes(network) if run.checkpoint.suffix == ".safetensors" else ()  # a release leaves them out
    kept = {key: one for key, one in own.items() if key.startswith(frozen)}
    found = read_weights(run.checkpoint, {key: one for key, one in own.items() if key not in kept})
    network.load_state_dict(found | kept, assign=is_whole)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return network.eval().to(device)


def inference_config(config: RunConfig) -> RunConfig:
    """Return the config for inference: no pretrained checkpoint is read, and there is no stochastic depth."""
    config = without_weights(config)
    return config.model_copy(update={"train": config.train.model_copy(update={"drop_path": 0.0})})


def frozen_prefixes(network: Network) -> tuple[str, ...]:
    """Return the state-dict prefixes of frozen ImageNet stages, which building a network restores."""
    return tuple(
        f"model.encoders.{stream}.network.{name}."
        for stream, encoder in network.model.encoders.items()
        if network.config.model.encoder.has_weights
        for name in encoder.frozen
    )


def read_weights(path: Path, wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of a run's checkpoint if they are finite and have the names and shapes of ``wanted``."""
    try:
        is_release = path.suffix == ".safetensors"  # in half precision
        found = load_file(path) if is_release else read_torch(path)["state_dict"]
        found = {key: one for key, one in found.items() if key.startswith("model.")}  # without those of the loss
        found = {key: one.to(wanted[key].dtype) if key in wanted else one for key, one in found.items()}
        faults = list_differences(wanted, found) or [key for key, one in found.items() if not torch.isfinite(one).all()]
    except Exception as error:  # a damaged file can raise anything: errors of zip, pickle or torch
        raise InputError(f"{path}: not a readable checkpoint of a run ({type(error).__name__}); {WAY_OUT}") from None
    if faults:
        raise InputError(f"{path}: not the finite weights of this run's network: {faults[0]}; {WAY_OUT}")
    return found


@torch.inference_mode()
def predict(network: Network, batches: Iterable[dict], cohort: pd.DataFrame) -> pd.DataFrame:
    """Return one row per breast of ``cohort``: identifiers, label, logit and probability of malignancy."""
    logits, is_scored = np.full(len(cohort), np.nan), np.zeros(len(cohort), bool)
    for batch in batches:
        batch = to_device(batch, network.device)
        rows = batch["row"].cpu().numpy()
        logits[rows], is_scored[rows] = network.score(batch)[0].cpu().numpy(), True
    if not is_scored.all():
        first = cohort["sample_id"].iloc[int(np.argmin(is_scored))]
        raise ValueError(f"the batches hold {is_scored.sum()} of {len(cohort)} breasts; the first without is {first}")
    return as_predictions(cohort, logits)


def to_device(batch: dict, device: torch.device) -> dict:
    """Return a batch, a dictionary of tensors and of dictionaries of tensors, with every tensor on ``device``."""
    return {name: to_device(one, device) if isinstance(one, dict) else one.to(device) for name, one in batch.items()}
