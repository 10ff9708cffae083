"""Fitting: the backbone learns to classify photos, then the detector learns to find things in composed scenes."""

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from worker.vision.network import Classifier, detector
from worker.vision.train import scenes
from worker.vision.train.draw import Picture

Say = Callable[[str], None]
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training does. Times are wall-clock minutes; learning rates follow one cosine over them."""

    seed: int = 1
    size: int = 256
    batch: int = 16
    classify_minutes: float = 12.0
    detect_minutes: float = 24.0
    classify_size: int = 128
    classify_batch: int = 48
    rate: float = 2e-3
    detect_rate: float = 1e-3
    threads: int = 2


def train(photos: scenes.Photos, plan: Plan, folder: Path, say: Say) -> Path:
    """Train the detector; a checkpoint is written every minute, and a run that was ended goes on from it.

    :param folder: where ``checkpoint.pt`` and ``log.jsonl`` lie.
    :returns: the file of the final weights (an average over the last part of the training).
    """
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / "checkpoint.pt"
    state = torch.load(saved, weights_only=True) if saved.exists() else {"stage": "classify", "spent": 0.0}
    classifier = Classifier(len(photos.labels), int(photos.fine.max()) + 1).to(memory_format=torch.channels_last)
    if state["stage"] == "classify":
        _classify(classifier, photos, plan, state, saved, say)
        state = {"stage": "detect", "spent": 0.0, "backbone": classifier.backbone.state_dict()}
        torch.save(state, saved)
    model = detector(len(photos.labels), plan.size)
    model.backbone.load_state_dict(state["backbone"])
    average = _detect(model, photos, plan, state, saved, say)
    final = folder / "final.pt"
    torch.save({"model": average, "labels": photos.labels, "plan": asdict(plan)}, final)
    return final


def _classify(model: Classifier, photos: scenes.Photos, plan: Plan, state: dict[str, object], saved: Path, say: Say) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), plan.rate, weight_decay=0.05)
    if "model" in state:
        model.load_state_dict(state["model"])  # type: ignore[arg-type]  # as saved below
        optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
    clock = _Clock(float(state["spent"]), plan.classify_minutes * 60)  # type: ignore[arg-type]
    members = np.arange(len(photos.pictures))

    def one(rng: np.random.Generator) -> tuple[Picture, int, int]:
        member = int(members[rng.integers(len(members))])
        picture = scenes.jitter(scenes.crop(photos.pictures[member], plan.classify_size, rng, 0.25), rng)
        if rng.random() < 0.5:
            _erase(picture, rng)
        return picture, int(photos.coarse[member]), int(photos.fine[member])

    model.train()
    for step, rows in enumerate(_ahead(one, plan.classify_batch, plan.seed + int(clock.before))):
        pictures = _tensor(np.stack([row[0] for row in rows]))
        coarse, fine = (torch.tensor([row[i] for row in rows]) for i in (1, 2))
        pictures, other, share = _cutmix(pictures)
        guess, guess_fine = model(pictures.to(memory_format=torch.channels_last))
        loss = _mixed(guess, coarse, other, share) + 0.7 * _mixed(guess_fine, fine, other, share)
        _step(optimizer, loss, clock, plan.rate)
        if step % 50 == 0:
            correct = (guess.argmax(1) == coarse).float().mean().item()
            say(f"classify  {clock.line()}  loss {loss.item():.3f}  batch accuracy {correct:.2f}")
        if clock.save_due() or clock.over():
            weights = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({"stage": "classify", "spent": clock.spent(), **weights}, saved)
        if clock.over():
            return


def _detect(
    model: nn.Module, photos: scenes.Photos, plan: Plan, state: dict[str, object], saved: Path, say: Say
) -> dict[str, Tensor]:
    optimizer = torch.optim.AdamW(model.parameters(), plan.detect_rate, weight_decay=0.02)
    moving = torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)  # type: ignore[no-untyped-call]  # torch's own gap
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=moving, use_buffers=True)
    if "model" in state:
        model.load_state_dict(state["model"])  # type: ignore[arg-type]  # as saved below
        average.module.load_state_dict(state["average"])  # type: ignore[arg-type]
        optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
    clock = _Clock(float(state["spent"]), plan.detect_minutes * 60)  # type: ignore[arg-type]
    members = np.arange(len(photos.pictures))

    def one(rng: np.random.Generator) -> tuple[Picture, NDArray[np.float32], NDArray[np.int64]]:
        while True:
            scene = scenes.compose(photos, members, plan.size, rng)
            if len(scene[1]):
                return scene

    model.train()
    for step, rows in enumerate(_ahead(one, plan.batch, plan.seed + 1000 + int(clock.before))):
        pictures = [torch.from_numpy(row[0]).permute(2, 0, 1).float() / 255 for row in rows]
        targets = [{"boxes": torch.from_numpy(row[1]), "labels": torch.from_numpy(row[2]) + 1} for row in rows]
        losses = model(pictures, targets)
        loss = sum(losses.values())
        _step(optimizer, loss, clock, plan.detect_rate)
        average.update_parameters(model)
        if step % 25 == 0:
            parts = "  ".join(f"{name.split('_')[0]} {value.item():.3f}" for name, value in losses.items())
            say(f"detect    {clock.line()}  loss {loss.item():.3f}  {parts}")
        if clock.save_due() or clock.over():
            weights = {"model": model.state_dict(), "average": average.module.state_dict(), "optimizer": optimizer.state_dict()}
            kept = {"stage": "detect", "spent": clock.spent(), "backbone": state["backbone"], "labels": photos.labels}
            torch.save({**kept, **weights}, saved)
        if clock.over():
            break
    return dict(average.module.state_dict())


class _Clock:
    """Time of a stage, over several runs."""

    def __init__(self, before: float, limit: float) -> None:
        self.before, self._limit = before, limit
        self._began = self._saved = time.monotonic()

    def spent(self) -> float:
        return self.before + time.monotonic() - self._began

    def share(self) -> float:
        return min(1.0, self.spent() / self._limit)

    def over(self) -> bool:
        return self.spent() >= self._limit

    def save_due(self) -> bool:
        if time.monotonic() - self._saved < 60:
            return False
        self._saved = time.monotonic()
        return True

    def line(self) -> str:
        return f"{self.share():4.0%} of {self._limit / 60:.0f} min"


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, clock: _Clock, rate: float) -> None:
    share = clock.share()
    warm = min(1.0, share / 0.03)
    for group in optimizer.param_groups:
        group["lr"] = rate * warm * 0.5 * (1 + math.cos(math.pi * share))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_((p for group in optimizer.param_groups for p in group["params"]), 5.0)
    optimizer.step()


def _cutmix(pictures: Tensor) -> tuple[Tensor, Tensor, float]:
    """Lay a part of another picture of the batch over each; give the order of the others and the share that stays."""
    size = pictures.shape[-1]
    order = torch.randperm(len(pictures))
    if np.random.default_rng(int(order.sum() * 7 + order[0])).random() < 0.4:
        return pictures, order, 1.0
    side = int(size * float(torch.rand(1)) * 0.7)
    y, x = (int(torch.randint(0, size - side + 1, (1,))) for _ in range(2))
    mixed = pictures.clone()
    mixed[:, :, y : y + side, x : x + side] = pictures[order, :, y : y + side, x : x + side]
    return mixed, order, 1 - (side / size) ** 2


def _mixed(guess: Tensor, truth: Tensor, other: Tensor, share: float) -> Tensor:
    smooth = 0.05
    loss = nn.functional.cross_entropy(guess, truth, label_smoothing=smooth) * share
    return loss + nn.functional.cross_entropy(guess, truth[other], label_smoothing=smooth) * (1 - share)


def _erase(picture: Picture, rng: np.random.Generator) -> None:
    size = picture.shape[0]
    high, wide = (int(size * rng.uniform(0.1, 0.4)) for _ in range(2))
    y, x = int(rng.integers(size - high)), int(rng.integers(size - wide))
    picture[y : y + high, x : x + wide] = rng.integers(0, 256, 3)


def _tensor(pictures: NDArray[np.uint8]) -> Tensor:
    return (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25


def _ahead(one: Callable[[np.random.Generator], Row], batch: int, seed: int) -> Iterator[list[Row]]:
    """Make batches in a thread beside the model: OpenCV and numpy leave the interpreter free."""
    root = np.random.SeedSequence(seed)

    def make(source: np.random.SeedSequence) -> list[Row]:
        rng = np.random.default_rng(source)
        return [one(rng) for _ in range(batch)]

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(make, root.spawn(1)[0])
        while True:
            rows = following.result()
            following = pool.submit(make, root.spawn(1)[0])
            yield rows


def write_log(folder: Path) -> Say:
    """Give a function that prints a line and keeps it in ``log.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        print(line, flush=True)  # noqa: T201 -- the progress of a tool
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"at": time.time(), "line": line}) + "\n")

    return say
