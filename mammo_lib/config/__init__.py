"""Settings: run configs, the identity of a run, profiles, and the location of the project."""

from .edit import as_repeats, as_yaml, closest, describe, load_config, merged, read_mapping, with_changes, with_seed
from .identity import completed, fingerprint, identity
from .paths import BUILD, MATERIAL, RANKS, REHEARSAL, ROOT, find_material, find_root, is_rehearsal, process_number
from .profiles import ALLOW_MISSING, MAX_BREASTS, Profile, get_profile, profile_names
from .registry import BACKBONES, TARGETS, Backbone, Target, register_backbone, register_target
from .run import (
    LARGEST_SEED,
    DataConfig,
    Definition,
    LearnedGate,
    ModelConfig,
    ReaderWords,
    RunConfig,
    TargetWeighting,
    TrainConfig,
)

RETRAIN = "MAMMO_RETRAIN"  # set to 1: committed records do not count, so their runs are trained again

__all__ = [
    "ALLOW_MISSING", "BACKBONES", "BUILD", "LARGEST_SEED", "MATERIAL", "MAX_BREASTS", "RANKS", "REHEARSAL", "RETRAIN",
    "ROOT", "TARGETS", "Backbone", "DataConfig", "Definition", "LearnedGate", "ModelConfig", "Profile", "ReaderWords",
    "RunConfig", "Target", "TargetWeighting", "TrainConfig", "as_repeats", "as_yaml", "closest", "completed",
    "describe", "find_material", "find_root", "fingerprint", "get_profile", "identity", "is_rehearsal", "load_config",
    "merged", "process_number", "profile_names", "read_mapping", "register_backbone", "register_target",
    "with_changes",
    "with_seed",
]  # fmt: skip
