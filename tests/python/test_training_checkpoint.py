"""Checkpoints of models in training."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from training_models import Net, digits, torch, train, trained_net

from ovfast import training
from ovfast.errors import Error


def prepared() -> torch.nn.Module:
    return training.prepare_qat(trained_net(), [digits()[0][:64]])


def test_a_trained_model_comes_back_with_its_quantizers(tmp_path: Path) -> None:
    model = train(prepared(), epochs=1, lr=1e-3)
    optimizer = torch.optim.Adam(model.parameters())
    extra = {"epoch": 3, "optimizer": optimizer.state_dict()}
    training.save_checkpoint(model, tmp_path / "c.pt", extra=extra)
    torch.manual_seed(9)
    restored, read = training.load_checkpoint(Net(), tmp_path / "c.pt")
    restored.eval()
    images = digits()[2]
    with torch.no_grad():
        assert torch.equal(restored(images), model(images))
    assert read == extra
    restored.train()
    restored(images).sum().backward()
    assert all(p.grad is not None for p in restored.parameters() if p.requires_grad), (
        "it can be trained on"
    )


def test_masks_come_back(tmp_path: Path) -> None:
    model = training.prepare_pruning(trained_net(), digits()[0][:4])
    schedule = training.PruningSchedule(model, target=0.7, steps=4)
    for _ in range(3):
        schedule.step()
    training.save_checkpoint(model, tmp_path / "c.pt", extra={"schedule": schedule.state_dict()})
    restored, extra = training.load_checkpoint(Net(), tmp_path / "c.pt")
    assert training.sparsity(restored) == training.sparsity(model)
    going_on = training.PruningSchedule(restored, target=0.7, steps=4)
    going_on.load_state_dict(extra["schedule"])
    going_on.step()
    assert training.sparsity(restored).ratio == pytest.approx(0.7, abs=1e-3)


def test_another_model_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    training.save_checkpoint(prepared(), tmp_path / "c.pt")
    smaller = Net(channels=24)
    before = list(smaller.state_dict())
    with pytest.raises(Error, match=r"another model: .*\[24.*\] in the model, \[32"):
        training.load_checkpoint(smaller, tmp_path / "c.pt")
    assert list(smaller.state_dict()) == before
    with pytest.raises(
        Error, match="the model lacks first.bias.*the checkpoint lacks bias, weight"
    ):
        training.load_checkpoint(torch.nn.Linear(2, 2), tmp_path / "c.pt")


def test_prepared_and_plain_models_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no quantizers"):
        training.save_checkpoint(Net(), tmp_path / "c.pt")
    model = prepared()
    training.save_checkpoint(model, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="prepared already"):
        training.load_checkpoint(model, tmp_path / "c.pt")


class Harmful:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> object:
        return Path.touch, (self.file,)


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    with pytest.raises(Error, match="cannot be read: No such file"):
        training.load_checkpoint(Net(), path)
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(Error, match="not a checkpoint"):
        training.load_checkpoint(Net(), path)
    training.save_checkpoint(prepared(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(Error, match="damaged"):
        training.load_checkpoint(Net(), path)
    torch.save({"ovfast_checkpoint": 1, "extra": Harmful(tmp_path / "ran")}, path)
    with pytest.raises(Error, match="damaged or no checkpoint"):
        training.load_checkpoint(Net(), path)
    assert not (tmp_path / "ran").exists()
    torch.save({"ovfast_checkpoint": 2}, path)
    with pytest.raises(Error, match="format 2"):
        training.load_checkpoint(Net(), path)


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.pt"
    model = prepared()
    training.save_checkpoint(model, path)
    before = path.read_bytes()

    def full(content: object, file: object) -> None:
        file.write(b"half")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(Error, match="cannot write.*No space left"):
        training.save_checkpoint(model, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]
    with pytest.raises(Error, match="No such file"):
        training.save_checkpoint(model, tmp_path / "missing" / "c.pt")
