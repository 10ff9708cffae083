"""Fitting: the backbone learns to classify photos, then the detector learns to find things in scenes.

Every step draws its pictures and its chances from the seed, the stage and its own number, so a run that was ended goes on
as if it had not been.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from worker.vision.detection.network import MEAN, STD, Classifier, build_detector
from worker.vision.train import augment, checkpoint, fine_head, scenes
from worker.vision.train.datasets import Photos, Scene
from worker.vision.train.progress import Clock, Say

_SMOOTH: Final = 0.1
_FINE: Final = 0.7
"""Weight of the fine classes beside the coarse ones, in both stages."""
LEAST_SIZE: Final = 128
"""Pixels, in both stages: below, the last stage convolves a single pixel, whose weights' gradient in bfloat16 oneDNN takes from
memory that nobody wrote (seen with torch 2.15.0)."""
_DECAY: Final = {"classify": 0.3, "detect": 0.15}
"""Of the weights, by each stage's optimizer. It acts times the rate, over all steps: with the 0.05 of long runs these short ones would not
feel it (Wang and Aitchison 2024)."""
_SMALL_UNTIL: Final = 0.65
_SMALL: Final = 0.8
"""Up to that share of its steps the detector learns from scenes of this part of its size. They take less time, and crops make things
look as large in them as they are in whole pictures of the full size (Touvron et al. 2019)."""
_RECIPE: Final = 4
"""Raised with every change of what a training does with the same plan and data: one that began by another recipe must not go on by this."""
_STREAMS: Final = {"classify": 8, "detect": 6}
"""Each stage draws from a stream of its own; other numbers would train another model."""
_SAVE_S: Final = 60.0
_SAY_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training does. An epoch shows as many pictures as there are photos; rates follow one cosine over a stage."""

    seed: int = 1
    size: int = 320
    classify_epochs: float = 240.0
    classify_size: int = 128
    classify_batch: int = 64
    classify_rate: float = 2e-3
    detect_epochs: float = 50.0
    detect_batch: int = 16
    detect_rate: float = 1e-3
    threads: int = 2
    device: str = "cpu"
    start: str = ""
    """Whose weights it begins from; empty for random ones."""


def train(photos: Photos, plan: Plan, folder: Path, say: Say, start: dict[str, Tensor]) -> dict[str, Tensor]:
    """Train the detector; a checkpoint is written every minute, and a run that was ended goes on from it.

    :param folder: where ``checkpoint.pt`` lies.
    :param start: weights of such a detector, or a part of them, to begin from; random ones take the place of what is missing.
    :returns: the final weights, an average over the last part of the training.
    :raises OtherTraining: ``folder`` belongs to another one.
    """
    torch.set_num_threads(plan.threads)
    saved = folder / "checkpoint.pt"
    # What may change from run to run is how fast it goes.
    identity = {"recipe": _RECIPE, "plan": asdict(replace(plan, threads=0, device="")), "labels": photos.labels, "data": photos.digest()}
    state: dict[str, Any] = {"stage": "classify", "step": 0, "identity": identity}
    if saved.exists():
        state = checkpoint.read(saved, identity)
        say(f"going on with {state['stage']} after step {state['step']}")
    shown = len(photos.pictures) + len(photos.scenes)
    if state["stage"] == "classify":
        torch.manual_seed(plan.seed)
        stage = _Stage("classify", plan, steps=math.ceil(plan.classify_epochs * shown / plan.classify_batch), rate=plan.classify_rate, saved=saved)
        classifier = Classifier(len(photos.labels), int(photos.fine.max()) + 1)
        classifier.load_state_dict(_part(start, "backbone."), strict=False)
        stage.run(classifier, state, _classify(photos, plan), say)
        state = {"stage": "detect", "step": 0, "identity": identity, "backbone": stage.average("backbone.")}
        checkpoint.write(saved, state)
    torch.manual_seed(plan.seed + 1)
    model = build_detector(len(photos.labels), plan.size)
    if state["step"] == 0:
        model.load_state_dict(_part(start, "head."), strict=False)
        model.backbone.load_state_dict(state["backbone"])
    model = fine_head.learner(model, int(photos.fine.max()) + 1, _FINE)
    stage = _Stage("detect", plan, steps=math.ceil(plan.detect_epochs * shown / plan.detect_batch), rate=plan.detect_rate, saved=saved)
    stage.run(model, state, _detect(photos, plan), say)
    return fine_head.without(stage.average(""))


def _part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: one for name, one in weights.items() if name.startswith(prefix)}


Losses = Callable[[nn.Module, list[Any]], dict[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Task:
    """How a stage learns: one picture with its truth, the number of them in a batch, and the losses of a batch.

    A picture is made for how much of the stage is done, from 0 to 1.
    """

    one: Callable[[np.random.Generator, float], Any]
    batch: int
    losses: Losses


def _classify(photos: Photos, plan: Plan) -> Task:
    def one(rng: np.random.Generator, _done: float) -> tuple[NDArray[np.uint8], int, int]:
        member = photos.draw(rng)
        picture = augment.light(augment.crop(photos.pictures[member], plan.classify_size, rng, least=0.15), rng)
        if rng.random() < 0.4:
            augment.erase(picture, rng)
        return picture, int(photos.coarse[member]), int(photos.fine[member])

    def losses(model: nn.Module, rows: list[tuple[NDArray[np.uint8], int, int]]) -> dict[str, Tensor]:
        pictures = _tensor(np.stack([row[0] for row in rows]), plan.device)
        coarse, fine = (torch.tensor([row[at] for row in rows], device=plan.device) for at in (1, 2))
        mixed, order, share = _cutmix(pictures)
        guesses = model((mixed - MEAN) / STD)
        total = {"coarse": _mixed([one[0] for one in guesses], coarse, order, share)}
        return total | {"fine": _FINE * _mixed([one[1] for one in guesses], fine, order, share)}

    return Task(one, plan.classify_batch, losses)


def _detect(photos: Photos, plan: Plan) -> Task:
    small = max(LEAST_SIZE, round(_SMALL * plan.size / 32) * 32)

    def one(rng: np.random.Generator, done: float) -> Scene:
        return scenes.compose(photos, small if done < _SMALL_UNTIL else plan.size, rng)

    def losses(model: Any, rows: list[Scene]) -> dict[str, Tensor]:
        pictures = _tensor(np.stack([row.picture for row in rows]), plan.device)
        targets = [
            {name: torch.from_numpy(part).to(plan.device) for name, part in (("boxes", row.boxes), ("labels", row.classes + 1), ("fine", row.fine))}
            for row in rows
        ]
        model.transform.fixed_size = pictures.shape[:1:-1]
        found: dict[str, Tensor] = model(list(pictures), targets)
        return found

    return Task(one, plan.detect_batch, losses)


@dataclass(slots=True)
class _Stage:
    """One of the two stages: its steps, its rate and where it is kept."""

    name: str
    plan: Plan
    steps: int
    rate: float
    saved: Path
    _averaged: Any = field(default=None)

    def run(self, model: nn.Module, state: dict[str, Any], task: Task, say: Say) -> None:
        """Take the steps that are left."""
        plan = self.plan
        model = model.to(plan.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own gap
        optimizer = torch.optim.AdamW(_decayed(model, _DECAY[self.name]), self.rate)
        # Over the last two hundredths of the steps or so: long enough to smooth, short enough to follow.
        moving = torch.optim.swa_utils.get_ema_multi_avg_fn(1 - 1 / max(10.0, self.steps / 50))  # type: ignore[no-untyped-call]  # as above
        self._averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=moving, use_buffers=True)
        if state["step"]:
            model.load_state_dict(state["model"])
            self._averaged.load_state_dict(state["average"])
            optimizer.load_state_dict(state["optimizer"])
        model.train()
        clock = Clock(state["step"], self.steps)
        identity = state["identity"]
        for step, rows in _batches(task, plan, self.name, state["step"], self.steps):
            torch.manual_seed(hash((plan.seed, step)))
            with torch.autocast(plan.device, torch.bfloat16):
                losses = task.losses(model, rows)
            loss = torch.stack([one.float() for one in losses.values()]).sum()
            _step(optimizer, loss, self.rate * _schedule(step, self.steps))
            self._averaged.update_parameters(model)
            if clock.said(_SAY_S) or step + 1 == self.steps:
                parts = "  ".join(f"{name.split('_')[0]} {value.item():.3f}" for name, value in losses.items())
                say(f"{self.name:<9} {clock.line(step + 1)}  {parts}")
            if clock.saved(_SAVE_S) or step + 1 == self.steps:
                weights = {"model": model.state_dict(), "average": self._averaged.state_dict(), "optimizer": optimizer.state_dict()}
                checkpoint.write(self.saved, {"stage": self.name, "step": step + 1, "identity": identity, **weights})

    def average(self, prefix: str) -> dict[str, Tensor]:
        """Give the averaged weights whose names begin with ``prefix``, without it."""
        weights = self._averaged.module.state_dict()
        return {name.removeprefix(prefix): one.cpu() for name, one in weights.items() if name.startswith(prefix)}


def _batches(task: Task, plan: Plan, stage: str, begin: int, end: int) -> Iterator[tuple[int, list[Any]]]:
    """Make batches in threads beside the model: OpenCV and numpy leave the interpreter free."""

    def make(step: int) -> list[Any]:
        rng = np.random.default_rng([plan.seed, _STREAMS[stage], step])
        return [task.one(rng, step / end) for _ in range(task.batch)]

    ahead: deque[Future[list[Any]]] = deque()
    with ThreadPoolExecutor(max(1, plan.threads // 2)) as pool:
        steps = iter(range(begin, end))
        for at in range(begin, end):
            while len(ahead) < plan.threads and (following := next(steps, None)) is not None:
                ahead.append(pool.submit(make, following))
            yield at, ahead.popleft().result()


def _decayed(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weights of convolutions and linear layers decay; norms and biases don't."""
    groups: tuple[list[Tensor], list[Tensor]] = ([], [])
    for parameter in model.parameters():
        groups[parameter.ndim > 1].append(parameter)
    return [{"params": groups[0], "weight_decay": 0.0}, {"params": groups[1], "weight_decay": decay}]


def _schedule(step: int, steps: int) -> float:
    share = step / steps
    return min(1.0, (share + 1e-3) / 0.03) * 0.5 * (1 + math.cos(math.pi * share))


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 5.0)
    if torch.isfinite(norm):  # one batch that overflows must not end hours of training
        optimizer.step()


def _cutmix(pictures: Tensor) -> tuple[Tensor, Tensor, float]:
    """Lay a part of another picture of the batch over each, three times out of five (Yun et al. 2019).

    :returns: the pictures, the order of the others and the share that stays.
    """
    size = pictures.shape[-1]
    order = torch.randperm(len(pictures))
    if float(torch.rand(1)) < 0.4:
        return pictures, order, 1.0
    side = int(size * float(torch.rand(1)) * 0.75)
    y, x = (int(torch.randint(0, size - side + 1, (1,))) for _ in range(2))
    mixed = pictures.clone()
    mixed[:, :, y : y + side, x : x + side] = pictures[order, :, y : y + side, x : x + side]
    return mixed, order, 1 - (side / size) ** 2


def _mixed(guesses: list[Tensor], truth: Tensor, other: Tensor, share: float) -> Tensor:
    losses = []
    for guess in guesses:
        first = nn.functional.cross_entropy(guess.float(), truth, label_smoothing=_SMOOTH)
        second = nn.functional.cross_entropy(guess.float(), truth[other], label_smoothing=_SMOOTH)
        losses.append(share * first + (1 - share) * second)
    return torch.stack(losses).mean()


def _tensor(pictures: NDArray[np.uint8], device: str) -> Tensor:
    """Pictures ``[N, H, W, 3]`` as floats ``[N, 3, H, W]`` from 0 to 1, channels last in memory."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 255
