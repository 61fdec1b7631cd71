"""What one run is: frozen pydantic models, JSON in and JSON out, and the profiles.

Every number that a run depends on lives here and nowhere else. Where the paper is
silent the default is our assumption, and the field's description says so; the book
prints these descriptions.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .errors import InputError

View = Literal["CC", "MLO"]
Stream = Literal["crop", "whole"]
Baseline = Literal["majority", "birads", "metadata", "crop_geometry", "frozen_features", "frozen_stages"]
MambaVisionName = Literal["nano", "lite", "T", "T2", "S", "B", "L", "L2", "L3"]
TimmName = Literal["resnet50", "convnext_tiny", "swin_tiny_patch4_window7_224", "vit_small_patch16_224"]
Definition = Literal["paper", "official", "lesion", "lesion-id", "mass+calc", "any-view"]


def find_root() -> Path:
    """Return the project folder: ``MAMMO_ROOT``, or the nearest parent with ``_config.yml`` and ``notebooks/``.

    Notebooks are started from several folders (JupyterLab and nbmake use ``notebooks/``,
    papermill the folder it was called in), so no path may be relative to the working folder.
    Outside a checkout (the installed wheel) it is the working folder.
    """
    if os.environ.get("MAMMO_ROOT"):
        return Path(os.environ["MAMMO_ROOT"]).resolve()
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / "_config.yml").is_file() and (folder / "notebooks").is_dir():
                return folder
    return Path.cwd()


def find_material(root: Path) -> Path:
    """Return the folder below which ``data_manifest/`` and ``book/`` lie: ``root``, the checkout or the wheel."""
    package = Path(__file__).resolve().parent
    for folder in (root, package.parent):
        if (folder / "data_manifest").is_dir() and (folder / "book" / "protocol.md").is_file():
            return folder
    return package / "material"


ALLOW_MISSING = "MAMMO_ALLOW_MISSING"  # set to 1: profiles leave out views that cannot be read
RETRAIN = "MAMMO_RETRAIN"  # set to 1: committed records do not count, so their runs are trained again
ROOT = find_root()
MATERIAL = find_material(ROOT)
BUILD = ROOT / "_build"


class Frozen(BaseModel):
    """A config section: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(Frozen):
    """Which breasts, and how their pixels are prepared."""

    definition: Definition = Field("paper", description="cohort definition; 'paper' is a candidate found by arithmetic")
    image_size: int = Field(224, ge=32, le=2048, description="side of the square network input, pixels (paper: 224)")
    mask_breast: bool = Field(True, description="blank everything outside the breast in whole views (our assumption)")
    orient: bool = Field(
        True, description="mirror right breasts so that every breast faces the same way (our assumption)"
    )
    crop_context: float | None = Field(
        None, ge=1, le=4,
        description="derived crops become a square around the lesion's box, this many times its longer side; none: the "
        "box itself; official crops stay as they are (not in the paper)",
    )  # fmt: skip
    extra_training: Definition | None = Field(
        None,
        description="a wider cohort whose breasts only train, and never validate or test (not in the paper)",
    )
    allow_missing: bool = Field(
        False, description="leave out views whose files are missing or cannot be decoded, instead of refusing to start"
    )
    n_folds: int = Field(5, ge=2, le=20, description="patient-level folds of the training breasts (our assumption)")
    fold: int = Field(0, ge=0, description="the fold that validates (our assumption)")
    fold_seed: int = Field(0, ge=0, description="seed of the fold assignment (our assumption)")

    @field_validator("fold")
    @classmethod
    def _fold_exists(cls, fold, info):
        n_folds = info.data.get("n_folds")
        if n_folds is not None and fold >= n_folds:
            raise ValueError(f"fold must lie in [0, n_folds={n_folds}), got {fold}")
        return fold


class ModelConfig(Frozen):
    """Mammo-Mamba's switches."""

    backbone: Literal[MambaVisionName, TimmName] = Field(
        "L",
        description="MambaVision variant (paper: L); "
        "'lite' is ours, stages 3 and 4 on EfficientNet-Lite0's frozen ImageNet stages; or a timm network",
    )
    streams: tuple[Stream, ...] = Field(
        ("crop", "whole"), min_length=1, description="independent pipelines (paper: both)"
    )
    views: tuple[View, ...] = Field(("CC", "MLO"), min_length=1, description="projections (paper: both)")
    mixer: Literal["selective", "gated_conv"] = Field(
        "selective",
        description="the paper says both: an input-dependent scan, or a fixed kernel and a gate",
    )
    token_blocks: Literal["hybrid", "ssm", "attention"] = Field(
        "hybrid", description="what stages 3 and 4 mix tokens with (paper: state-space mixers, then attention)"
    )
    gate: Literal["learned", "fixed", "random", "none"] = Field(
        "learned", description="SeqMoE's gates; 'none' is plain MambaVision, 'fixed' is 0.5, 'random' ignores the image"
    )
    gate_scope: Literal["image", "window", "token"] = Field(
        "image", description="what one gate value is for (paper: a mean-pooled scalar, called spatial routing)"
    )
    gate_blocks: Literal["all", "mixer"] = Field(
        "all",
        description="which blocks SeqMoE wraps: all, or those with a state-space mixer (our assumption)",
    )
    gate_stages: Literal["3+4", "3", "4"] = Field("3+4", description="stages whose blocks are gated (paper: 3 and 4)")
    gate_bias: float = Field(2.0, description="initial bias of the gates; sigmoid(2) = 0.88 (our assumption)")
    weights: str | None = Field(
        None,
        description="'official': the backbone's released checkpoint from the folder MAMMO_WEIGHTS (else weights/); a "
        "path; none: new (paper: ImageNet, 1K or 21K not stated)",
    )
    stem: Literal["repeat", "fold"] = Field(
        "repeat", description="grey to three channels, or a one-channel stem with the normalisation folded in"
    )
    freeze: Literal["auto", "none", "stages12", "stages12_and_stem"] = Field(
        "auto",
        description="'auto': stages 1-2 of encoders that are not new, else nothing (paper: stages 1-2, stem tuned)",
    )
    lesion_type_head: bool = Field(
        False, description="a second head, mass or calcification, trained beside the first (not in the paper)"
    )
    view_fusion: Literal["concat", "mean"] = Field(
        "concat", description="how the views of a stream are joined before the projection (our assumption)"
    )
    fusion: Literal["gate", "scalar_gate", "concat", "mean"] = Field(
        "gate", description="how streams are joined; the paper names a gate without a formula"
    )

    @property
    def is_pretrained(self) -> bool:
        """Whether the encoders start from weights that were trained elsewhere."""
        return self.weights is not None or self.backbone == "lite"

    @field_validator("streams", "views")
    @classmethod
    def _no_repeats(cls, value):
        if len(set(value)) != len(value):
            raise ValueError(f"entries must differ, got {list(value)}")
        return tuple(sorted(value))

    @model_validator(mode="after")
    def _blocks_are_mambavisions(self):
        if self.freeze.startswith("stages12") and not self.is_pretrained:
            raise ValueError(f"freeze={self.freeze!r} would freeze random weights: give weights, or freeze='none'")
        if self.backbone == "lite" and (self.weights or self.stem == "fold"):
            raise ValueError("backbone 'lite' brings its weights and its stem: leave weights out, and stem='repeat'")
        if self.backbone in get_args(TimmName):
            own = {"gate": "none", "mixer": "selective", "token_blocks": "hybrid", "stem": "repeat"}
            for field, value in own.items():
                if (given := getattr(self, field)) != value:
                    raise ValueError(
                        f"{field}={given!r} is a switch of MambaVision: with backbone={self.backbone!r} set {field} "
                        f"to {value!r}"
                    )
        return self


class TrainConfig(Frozen):
    """The optimisation. The paper gives AdamW, cosine decay, batch 8, label smoothing, and no numbers beyond these."""

    epochs: int = Field(30, ge=1, description="passes over the training breasts (our assumption)")
    batch_size: int = Field(8, ge=1, description="breasts per step (paper: 8)")
    learning_rate: float = Field(1e-4, gt=0, description="peak learning rate of AdamW (our assumption)")
    weight_decay: float = Field(0.05, ge=0, description="decoupled weight decay (our assumption)")
    warmup_epochs: float = Field(1.0, ge=0, description="linear warm-up before the cosine decay (our assumption)")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="cross-entropy label smoothing (value: our assumption)")
    reader_labels: float = Field(
        0.0, ge=0, le=1,
        description="share of the target that is what the readers' words make of a training breast (not in the paper)",
    )  # fmt: skip
    encoder_rate: float = Field(
        1.0,
        gt=0,
        le=1,
        description="learning rate of encoders that are not new, over that of the rest (our assumption)",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the view embeddings (not in the paper)")
    flip_averaging: bool = Field(
        False, description="score the mean logit of an image and of its upside-down copy (not in the paper)"
    )
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth rate of the last block (our assumption)")
    gradient_clip: float | None = Field(None, gt=0, description="largest norm of the gradient; none (not in the paper)")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="decay of averaged weights, which are then validated and kept (not in the paper)"
    )
    augment: bool = Field(
        True, description="random flip, rotation, shift, zoom and contrast, drawn per view (our assumption)"
    )
    augment_strength: float = Field(
        1.0, gt=0, le=3, description="1: 10 degrees, 8 % shift, 10 % zoom, 20 % contrast (our assumption)"
    )
    patience: int = Field(
        10, ge=1, description="epochs without a better validation AUC before stopping (our assumption)"
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field("32-true", description="Lightning precision")
    devices: int = Field(1, ge=1, description="processes; each on a GPU of its own where there are GPUs")


class RunConfig(Frozen):
    """One run: one experiment, one seed."""

    experiment: str = Field("dual_stream", pattern=r"^[a-z0-9][a-z0-9_]*$", description="name of the experiment")
    baseline: Baseline | None = Field(None, description="a baseline instead of the network; the model is then ignored")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    seed: int = Field(0, ge=0, description="seed of weights, order and augmentation")

    @model_validator(mode="after")
    def _fits_the_timm_backbone(self):
        backbone, size = self.model.backbone, self.data.image_size
        if backbone == "vit_small_patch16_224" and size % 16:
            raise ValueError(f"data.image_size must be a multiple of {backbone}'s 16-pixel patches, got {size}")
        return self

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the canonical JSON form: equal configs, equal fingerprints."""
        return fingerprint(self.model_dump(mode="json"))


class Profile(Frozen):
    """A size of reproduction: which data, which run, which seeds."""

    name: str
    phantom_breasts: int | None = Field(None, description="breasts of the generated phantom; None: the user's data")
    phantom_seed: int = 0
    run: RunConfig = RunConfig()
    seeds: tuple[int, ...] = (0,)

    def configs(self) -> list[RunConfig]:
        """Return one run config per seed."""
        return [self.run.model_copy(update={"seed": seed}) for seed in self.seeds]


PROFILES: dict[str, Profile] = {
    "smoke": Profile(
        name="smoke",
        phantom_breasts=144,
        run=RunConfig(
            data=DataConfig(image_size=64, n_folds=4),
            model=ModelConfig(backbone="nano"),
            train=TrainConfig(epochs=6, batch_size=8, learning_rate=1e-3, augment=False),
        ),
    ),
    "mirror": Profile(
        name="mirror",
        run=RunConfig(
            data=DataConfig(image_size=96, crop_context=1.0, extra_training="any-view"),
            model=ModelConfig(backbone="lite", view_fusion="mean"),
            train=TrainConfig(
                epochs=14,
                batch_size=16,
                learning_rate=1e-3,
                reader_labels=0.5,
                dropout=0.2,
                drop_path=0.1,
                augment_strength=1.5,
                gradient_clip=1.0,
                patience=14,
                flip_averaging=True,
            ),
        ),
        seeds=(0, 1, 2),
    ),
    "paper": Profile(name="paper", run=RunConfig(model=ModelConfig(weights="official")), seeds=(0, 1, 2, 3, 4)),
}


def fingerprint(value: object) -> str:
    """Return the SHA-256 of ``value`` written as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def get_profile(name: str | None = None) -> Profile:
    """Return the profile ``name``, else the one in ``MAMMO_PROFILE``, else ``smoke``."""
    name = name or os.environ.get("MAMMO_PROFILE") or "smoke"
    if name not in PROFILES:
        raise InputError(f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}")
    profile = PROFILES[name]
    if os.environ.get(ALLOW_MISSING) == "1":
        data = profile.run.data.model_copy(update={"allow_missing": True})
        profile = profile.model_copy(update={"run": profile.run.model_copy(update={"data": data})})
    return profile


def load_config(path: str | Path) -> RunConfig:
    """Read a :class:`RunConfig` from a JSON file.

    Raises
    ------
    InputError
        The file is missing, is not JSON, or a field is unknown or out of bounds.
    """
    path = Path(path)
    try:
        return RunConfig.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the config ({error.strerror}); give the path of a JSON file") from None
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """Turn pydantic's report into one line: field, what is wrong, the value given."""
    parts = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"]) or "file"
        what = "unknown key, remove it" if item["type"] == "extra_forbidden" else item["msg"]
        value = "" if item["type"] in ("extra_forbidden", "json_invalid") else f", got {item['input']!r}"
        parts.append(f"{field}: {what}{value}")
    return "; ".join(parts)
