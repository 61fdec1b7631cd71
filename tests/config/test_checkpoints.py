"""The location of pretrained weights, and their hash."""

import hashlib
from pathlib import Path

import pytest

from mammo_lib.config import ModelConfig, checkpoints
from mammo_lib.errors import InputError


def test_official_is_looked_up_by_backbone(tmp_path, monkeypatch):
    monkeypatch.setenv(checkpoints.WEIGHTS_FOLDER, str(tmp_path))
    with pytest.raises(InputError, match=r"mambavision_large_1k\.pth\.tar: no such checkpoint; `mammo weights L`"):
        checkpoints.find_checkpoint("L", "official")
    with pytest.raises(InputError, match=r"resnet50\.safetensors: no such checkpoint; save timm's weights there"):
        checkpoints.find_checkpoint("resnet50", "official")
    have = "T, T2, S, B, L, L2 have"
    with pytest.raises(InputError, match=f"^weights official: nano has none; {have}. Choose one of these, or give the"):
        checkpoints.find_checkpoint("nano", "official")
    with pytest.raises(InputError, match=f"L3 has none; {have}. `mammo weights L3_256_21k` downloads .* give its path"):
        checkpoints.find_checkpoint("L3", "official")
    (tmp_path / "mambavision_large_1k.pth.tar").touch()
    assert checkpoints.find_checkpoint("L", "official") == tmp_path / "mambavision_large_1k.pth.tar"
    assert checkpoints.find_checkpoint("L", "mine.pth") == Path("mine.pth")


def test_the_hash_of_weights_follows_the_file(tmp_path):
    path = tmp_path / "mine.pth"
    model = ModelConfig(backbone="nano", weights=str(path))
    assert checkpoints.weights_hash(model) is None  # not at hand
    assert checkpoints.weights_hash(ModelConfig(backbone="nano")) is None
    for content in (b"first", b"second"):
        path.write_bytes(content)
        assert checkpoints.weights_hash(model) == hashlib.sha256(content).hexdigest()
