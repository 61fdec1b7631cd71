"""The protocols, fixed before the runs that they govern, and which of them governs a run."""

from __future__ import annotations

from pathlib import Path

from ..config import MATERIAL, RunConfig

PROTOCOL = MATERIAL / "book" / "protocol.md"
PROTOCOL_2 = MATERIAL / "book" / "protocol-2.md"  # of cross-validations
PROTOCOL_3 = MATERIAL / "book" / "protocol-3.md"  # of runs whose config names it, as the next
PROTOCOL_4 = MATERIAL / "book" / "protocol-4.md"
PROTOCOL_5 = MATERIAL / "book" / "protocol-5.md"  # of the fourth look at the test set
PROTOCOL_6 = MATERIAL / "book" / "protocol-6.md"  # of larger whole films
PROTOCOL_7 = MATERIAL / "book" / "protocol-7.md"  # of crops and films of up to 512 pixels
PROTOCOL_8 = MATERIAL / "book" / "protocol-8.md"  # of the fourth look's networks on films that they had not seen
PROTOCOL_9 = MATERIAL / "book" / "protocol-9.md"  # of whole films with the encoder in training mode
PROTOCOL_10 = MATERIAL / "book" / "protocol-10.md"  # of crops and films of up to 384 pixels in training mode
PROTOCOL_11 = MATERIAL / "book" / "protocol-11.md"  # of gates on 100 tokens
PROTOCOL_EXTERNAL = MATERIAL / "book" / "protocol-external.md"  # of scores on other collections

OF_VERSION = {
    3: PROTOCOL_3, 4: PROTOCOL_4, 5: PROTOCOL_5, 6: PROTOCOL_6, 7: PROTOCOL_7, 9: PROTOCOL_9,
    10: PROTOCOL_10, 11: PROTOCOL_11,
}  # fmt: skip


def protocol_of(config: RunConfig, *, is_fold: bool = False) -> Path:
    """Return the protocol that governs a run: the one its config names, that of cross-validations, or the first."""
    if config.protocol:
        return OF_VERSION[config.protocol]
    return PROTOCOL_2 if is_fold or config.data.fold == "each" else PROTOCOL


def protocol_elsewhere(config: RunConfig, collection: str) -> Path:
    """Return the protocol of a network's scores on another collection: version 8 for version 5's list on mini-MIAS."""
    return PROTOCOL_8 if config.protocol == 5 and collection == "mini_mias" else PROTOCOL_EXTERNAL


def protocol_incomplete(config: RunConfig) -> Path:
    """Return the protocol of a network's scores with films missing: version 8 for version 5's list, else its own."""
    return PROTOCOL_8 if config.protocol == 5 else protocol_of(config)
