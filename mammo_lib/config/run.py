"""The config of a run: frozen pydantic models, in JSON or YAML.

Every number that a run depends on is defined here. If the paper does not state a value, the default is our assumption,
and the field's description says so. The book prints these descriptions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .registry import BACKBONES, TARGETS, Backbone

View = Literal["CC", "MLO"]
Stream = Literal["crop", "whole"]
Baseline = Literal["majority", "birads", "metadata", "crop_geometry", "frozen_features", "frozen_stages"]
TRANSFERRED = ("frozen_stages", "frozen_features")  # need only pixels, which every collection has
TargetWeighting = Literal["fixed", "uncertainty", "gradient"]
ReaderWords = Literal["own_split", "all_tables"]
Definition = Literal["paper", "official", "lesion", "lesion-id", "calc", "mass+calc", "any-view"]


class Frozen(BaseModel):
    """A config section: immutable; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, fields: object) -> object:
        for name, value in fields.items() if isinstance(fields, dict) else ():
            said = [one for one in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(one, bool)]
            if said and name in cls.model_fields:
                kinds = {*_kinds(cls.model_fields[name].annotation)}
                if {int, float} & kinds and bool not in kinds:
                    raise ValueError(f"{name} must be a number, got {str(said[0]).lower()}")
        return fields


def _kinds(annotation: object) -> Iterator[object]:
    """Yield the types that an annotation is made of: ``int`` and ``NoneType`` of ``tuple[int, ...] | None``."""
    if parts := get_args(annotation):
        for part in parts:
            yield from _kinds(part)
    else:
        yield annotation


LARGEST_SEED = 2**32 - 1  # numpy's
Side = Annotated[int, Field(ge=32, le=2048)]


class DataConfig(Frozen):
    """Selection of breasts and preparation of their pixels."""

    definition: Definition = Field("paper", description="cohort definition; 'paper' is a candidate found by arithmetic")
    image_size: tuple[Side, Side] = Field(
        (224, 224),
        description="height and width of the network input in pixels; one number means a square (paper: 224)",
    )
    mask_breast: bool = Field(True, description="blank everything outside the breast in whole views (our assumption)")
    orient: bool = Field(
        True, description="mirror right breasts so that every breast faces the same way (our assumption)"
    )
    crop_context: float | None = Field(
        None, ge=1, le=4,
        description="derived crops are squares around the lesion's box, this many times its longer side; null: the box "
        "itself; official crops are unchanged (not in the paper)",
    )  # fmt: skip
    extra_training: Definition | None = Field(
        None,
        description="a wider cohort whose additional breasts are used for training only (not in the paper)",
    )
    hold_out_extra: bool = Field(
        False,
        description="divide the additional breasts into the folds too, and score those of the validation fold beside "
        "the cohort; otherwise all of them are used for training (not in the paper)",
    )
    allow_missing: bool = Field(
        False, description="leave out views whose files are missing or cannot be decoded, instead of refusing to start"
    )
    reader_words: ReaderWords = Field(
        "own_split",
        description="tables that provide the readers' descriptions of a breast: those of its own split, or all tables, "
        "in which calcification test tables can describe training breasts (protocol 1)",
    )
    n_folds: int = Field(5, ge=2, le=20, description="patient-level folds of the training breasts (our assumption)")
    fold: Annotated[int, Field(ge=0)] | Literal["each"] = Field(
        0, description="the validation fold, or 'each': cross-validation over all folds (our assumption)"
    )
    training_share: float = Field(
        1.0, gt=0, le=1,
        description="share of the training patients that are used, drawn by label; smaller shares are parts of larger "
        "ones (not in the paper)",
    )  # fmt: skip
    fold_seed: int = Field(
        0, ge=0, le=LARGEST_SEED,
        description="seed of the fold assignment; cross-validation adds the run's seed (our assumption)",
    )  # fmt: skip

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, value):
        return (value, value) if isinstance(value, int) else value

    @field_validator("fold")
    @classmethod
    def _fold_exists(cls, fold, info):
        n_folds = info.data.get("n_folds")
        if n_folds is not None and fold != "each" and fold >= n_folds:
            raise ValueError(f"fold must lie in [0, n_folds={n_folds}), got {fold}")
        return fold


GatedStages = Literal["3+4", "3", "4"]
GatedBlocks = Literal["all", "mixer"]


class NoGate(Frozen):
    """Plain MambaVision."""

    kind: Literal["none"] = "none"


class SetGate(Frozen):
    """A control for the learned gate: always 0.5, or drawn at random in training."""

    kind: Literal["fixed", "random"]
    stages: GatedStages = Field("3+4", description="stages whose blocks are gated (paper: 3 and 4)")
    blocks: GatedBlocks = Field("all", description="which blocks are gated: all, or those with a state-space mixer")


class LearnedGate(Frozen):
    """SeqMoE's gate, computed from the image."""

    kind: Literal["learned"] = "learned"
    stages: GatedStages = Field("3+4", description="stages whose blocks are gated (paper: 3 and 4)")
    blocks: GatedBlocks = Field(
        "all", description="which blocks are gated: all, or those with a state-space mixer (our assumption)"
    )
    scope: Literal["image", "window", "token"] = Field(
        "image",
        description="the area that one gate value applies to (paper: a mean-pooled scalar, called spatial routing)",
    )
    bias: float = Field(2.0, description="initial bias of the gates; sigmoid(2) = 0.88 (our assumption)")
    binary: bool = Field(
        False,
        description="round each gate to 0 or 1; the gradient ignores the rounding (the paper also says "
        "'learned binary gating')",
    )


Gate = Annotated[NoGate | SetGate | LearnedGate, Field(discriminator="kind")]


class ModelConfig(Frozen):
    """Settings of Mammo-Mamba."""

    backbone: str = Field(
        "L",
        description="MambaVision variant (paper: L), a timm network, or our 'lite': stages 3 and 4 on the frozen "
        "ImageNet stages of EfficientNet-Lite0 ('lite1', 'lite2': of -Lite1, -Lite2)",
    )
    streams: tuple[Stream, ...] = Field(
        ("crop", "whole"), min_length=1, description="independent pipelines (paper: both)"
    )
    views: tuple[View, ...] = Field(("CC", "MLO"), min_length=1, description="projections (paper: both)")
    mixer: Literal["selective", "gated_conv"] = Field(
        "selective",
        description="sequence mixer: an input-dependent scan, or a fixed kernel with a gate; the paper says both",
    )
    token_blocks: Literal["hybrid", "ssm", "attention", "none"] = Field(
        "hybrid",
        description="how stages 3 and 4 mix tokens; none: they have no blocks (paper: state-space mixers, then "
        "attention)",
    )
    mlp_ratio: float = Field(
        4.0, gt=0, le=16,
        description="ratio of hidden to input width of the perceptron in a token block; used to match parameter counts",
    )  # fmt: skip
    frozen_stride: Literal[8, 16, 32] = Field(
        16, description="stride at which the frozen ImageNet stages of 'lite' end: pixels per token of stage 3"
    )
    gate: Gate = Field(
        LearnedGate(),
        description="SeqMoE's gates: learned, fixed, random, or none (plain MambaVision); a kind alone uses its "
        "defaults",
    )
    weights: str | None = Field(
        None,
        description="'official': the backbone's released checkpoint, in the folder MAMMO_WEIGHTS (default weights/); "
        "or a path; null: random weights, or the ImageNet stages of 'lite' (paper: ImageNet, 1K or 21K not stated)",
    )
    stem: Literal["repeat", "fold"] = Field(
        "repeat",
        description="repeat grey images to three channels, or use a one-channel stem with the normalisation folded in",
    )
    freeze: Literal["auto", "none", "stages12", "stages12_and_stem"] = Field(
        "auto",
        description="frozen part; 'auto': stages 1-2 of pretrained encoders, else nothing (paper: stages 1-2, "
        "stem tuned)",
    )
    targets: tuple[str, ...] = Field(
        ("malignancy",), min_length=1, description="targets of the heads: malignancy, then others (not in the paper)"
    )
    view_fusion: Literal["concat", "mean"] = Field(
        "concat", description="how the views of a stream are joined before the projection (our assumption)"
    )
    fusion: Literal["gate", "scalar_gate", "concat", "mean"] = Field(
        "gate", description="how streams are joined; the paper mentions a gate but gives no formula"
    )

    @property
    def encoder(self) -> Backbone:
        """The registry entry of the backbone."""
        return BACKBONES[self.backbone]

    @property
    def is_pretrained(self) -> bool:
        """Whether the encoders start from pretrained weights."""
        return self.weights is not None or self.encoder.has_weights

    @property
    def frozen_part(self) -> str:
        """The part that is frozen, with ``auto`` resolved."""
        automatic = "stages12" if self.is_pretrained else "none"
        return automatic if self.freeze == "auto" else self.freeze

    @field_validator("gate", mode="before")
    @classmethod
    def _kind_of_gate(cls, value):
        if isinstance(value, str):
            return {"kind": value}
        return {"kind": "learned"} | value if isinstance(value, dict) else value

    @field_validator("streams", "views")
    @classmethod
    def _no_repeats(cls, value):
        if len(set(value)) != len(value):
            raise ValueError(f"entries must differ, got {list(value)}")
        return tuple(sorted(value))

    @field_validator("backbone")
    @classmethod
    def _is_registered(cls, value):
        if value not in BACKBONES:
            raise ValueError(f"must be one of {', '.join(BACKBONES)}")
        return value

    @field_validator("targets")
    @classmethod
    def _malignancy_first(cls, value):
        if unknown := [name for name in value if name not in TARGETS]:
            raise ValueError(f"{unknown[0]!r} is not a target: choose from {', '.join(TARGETS)}")
        if value[0] != "malignancy" or len(set(value)) != len(value):
            raise ValueError(f"must start with 'malignancy' and name each target once, got {list(value)}")
        return value

    @model_validator(mode="after")
    def _fits_the_backbone(self):
        if self.freeze.startswith("stages12") and not self.is_pretrained:
            raise ValueError(f"freeze={self.freeze!r} would freeze random weights: give weights, or freeze='none'")
        if self.encoder.has_weights and (self.weights or self.stem == "fold"):
            raise ValueError(
                f"backbone {self.backbone!r} has its own weights and stem: leave out weights, and keep stem='repeat'"
            )
        if self.encoder.has_weights and self.freeze == "stages12_and_stem":
            raise ValueError(
                f"freeze='stages12_and_stem' would freeze the new, random projection of backbone {self.backbone!r}: "
                "use 'stages12' or 'auto'"
            )
        if not self.encoder.is_mambavision:
            own = {"mixer": "selective", "token_blocks": "hybrid", "mlp_ratio": 4.0, "stem": "repeat"}
            given = {field: getattr(self, field) for field in own} | {"gate": self.gate.kind}
            for field, value in (own | {"gate": "none"}).items():
                if given[field] != value:
                    raise ValueError(
                        f"{field}={given[field]!r} is a setting of MambaVision: with backbone={self.backbone!r} set "
                        f"{field} to {value!r}"
                    )
        if self.frozen_stride != 16 and not self.encoder.has_weights:
            raise ValueError(
                f"frozen_stride={self.frozen_stride} is a setting of 'lite': with {self.backbone!r} set it to 16"
            )
        if self.gate.kind != "none" and self.token_blocks == "none":
            raise ValueError("token_blocks='none' leaves no block to gate: set gate='none'")
        if self.gate.kind != "none" and self.gate.blocks == "mixer" and self.token_blocks == "attention":
            raise ValueError("gate.blocks='mixer' gates nothing where token_blocks='attention': set gate='none'")
        return self


class TrainConfig(Frozen):
    """Optimisation. The paper states AdamW, cosine decay, batch size 8 and label smoothing, but no other numbers."""

    epochs: int = Field(30, ge=1, le=100_000, description="passes over the training breasts (our assumption)")
    batch_size: int = Field(8, ge=1, le=65_536, description="breasts per step (paper: 8)")
    learning_rate: float = Field(1e-4, gt=0, description="peak learning rate of AdamW (our assumption)")
    weight_decay: float = Field(0.05, ge=0, description="decoupled weight decay (our assumption)")
    warmup_epochs: float = Field(1.0, ge=0, description="linear warm-up before the cosine decay (our assumption)")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="cross-entropy label smoothing (value: our assumption)")
    reader_labels: float = Field(
        0.0, ge=0, le=1,
        description="share of the target that is predicted from all that the readers noted of a training breast: "
        "assessment, subtlety, density and descriptions (not in the paper)",
    )  # fmt: skip
    encoder_rate: float = Field(
        1.0,
        gt=0,
        le=1,
        description="learning rate of pretrained encoders, relative to the rest of the network (our assumption)",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the view embeddings (not in the paper)")
    view_dropout: float = Field(
        0.0, ge=0, lt=1, description="probability of hiding each view of a training breast (not in the paper)"
    )
    stream_dropout: float = Field(
        0.0, ge=0, lt=1, description="probability of hiding each stream of a training breast (not in the paper)"
    )
    target_weight: float = Field(
        1.0, ge=0, le=100, description="weight of the loss of each further target (not in the paper)"
    )
    target_weighting: TargetWeighting = Field(
        "fixed",
        description="what multiplies the losses of further targets besides target_weight: nothing; a learned "
        "uncertainty; or a factor that gives them the gradient norm of the main loss (not in the paper)",
    )
    flip_averaging: bool = Field(
        False, description="score the mean logit of an image and of its upside-down copy (not in the paper)"
    )
    best_epoch: Literal["as_scored", "single_image"] = Field(
        "as_scored",
        description="scoring of validation when the best epoch is chosen: as in all results, or without averaging "
        "flips (protocol 1)",
    )
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth rate of the last block (our assumption)")
    gradient_clip: float | None = Field(
        None, gt=0, description="largest norm of the gradient; null: no clipping (not in the paper)"
    )
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay of averaged weights, which are then used for validation and kept (not in the paper)",
    )
    augment: float = Field(
        1.0, ge=0, le=3,
        description="strength of a random flip, rotation, shift, zoom and contrast, drawn per view; 0: none, 1: "
        "10 degrees, 8 % shift, 10 % zoom, 20 % contrast (our assumption)",
    )  # fmt: skip
    frozen_cache: int | None = Field(
        None, ge=1, le=64,
        description="number of augmented variants per training view; the output of the frozen first part is computed "
        "once for each and kept on disk; null: augment and compute anew each time (not in the paper)",
    )  # fmt: skip
    cached_encoder: Literal["training", "evaluation"] = Field(
        "training",
        description="mode of the encoder while it trains on a cache; 'evaluation': drop path, batch statistics and "
        "random gates are off, as in the first series of protocols 2 to 4, where it was an error",
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="weights that a run keeps: those of the epoch with the best validation AUC, or those of the last "
        "epoch, which use no validation breast",
    )
    patience: int = Field(
        10, ge=1, le=100_000,
        description="epochs without a better validation AUC before training stops; ignored with keep='last' "
        "(our assumption)",
    )  # fmt: skip
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field("32-true", description="Lightning precision")
    devices: int = Field(1, ge=1, le=1024, description="number of processes; each has its own GPU if there are GPUs")


class RunConfig(Frozen):
    """One run: one experiment, one seed."""

    experiment: str = Field("dual_stream", pattern=r"^[a-z0-9][a-z0-9_]*$", description="name of the experiment")
    baseline: Baseline | None = Field(
        None, description="a baseline instead of the network; the model settings are then ignored"
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="seed of weights, order and augmentation")
    protocol: Literal[3, 4, 5, 6, 7, 9, 10, 11] | None = Field(
        None,
        description="version of the protocol that governs the run; null: 1, or 2 for a cross-validation",
    )

    @model_validator(mode="after")
    def _fits_the_patches(self):
        patch, size = self.model.encoder.patch, self.data.image_size
        if any(side % patch for side in size):
            raise ValueError(
                f"data.image_size must be a multiple of {self.model.backbone}'s {patch}-pixel patches, got {list(size)}"
            )
        return self

    @model_validator(mode="after")
    def _gives_every_fold_a_seed(self):
        last = self.of_fold(self.data.n_folds - 1)
        if self.data.fold == "each" and max(last.seed, last.data.fold_seed) > LARGEST_SEED:
            raise ValueError(
                f"seed {self.seed} or data.fold_seed {self.data.fold_seed} is too large for a cross-validation: "
                f"the seed of a fold would exceed {LARGEST_SEED}"
            )
        return self

    def with_seed(self, seed: int) -> RunConfig:
        """Return the config with another seed, validated: a ``ValidationError`` says what does not fit it."""
        return type(self).model_validate(self.model_dump() | {"seed": seed})

    def of_fold(self, fold: int) -> RunConfig:
        """Return the config of one fold of a cross-validation; its seed divides patients and initialises networks."""
        data = self.data.model_copy(update={"fold": fold, "fold_seed": self.data.fold_seed + self.seed})
        return self.model_copy(update={"data": data, "seed": self.seed * self.data.n_folds + fold})

    @property
    def inputs(self) -> tuple[DataConfig, tuple[View, ...], tuple[Stream, ...]]:
        """The network's input from a breast: pixels, views and streams."""
        return self.data, self.model.views, self.model.streams

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the run's identity (:mod:`mammo_lib.config.identity`)."""
        from .identity import fingerprint, identity

        return fingerprint(identity(self))
