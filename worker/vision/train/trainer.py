"""Train the detector in two stages.

The first stage trains the backbone to classify photos. The second stage trains the whole detector to find objects in
scenes. Every step derives its images and random numbers from the seed, the stage, and the number of the step, so that a
resumed training gives the same weights as a training without an interruption.
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
from worker.vision.train.progress import LogLine, Progress

_LABEL_SMOOTHING: Final = 0.1
_FINE_WEIGHT: Final = 0.7
"""Weight of the loss for the fine classes, relative to the loss for the coarse classes, in both stages."""
MIN_SIZE: Final = 128
"""Smallest side of the input in pixels, in both stages. For a smaller input, the last stage of the network convolves a
single pixel, and oneDNN computes the gradient of this stage's weights in bfloat16 from uninitialised memory (observed
with torch 2.15.0)."""
_WEIGHT_DECAY: Final = {"classify": 0.3, "detect": 0.15}
"""Weight decay of the optimizer in each stage. The effect of weight decay depends on the sum of decay times learning
rate over all steps, so 0.05, which is usual in long trainings, has no effect in these short ones (Wang and Aitchison
2024)."""
_SMALL_SHARE: Final = 0.65
_SMALL_SCALE: Final = 0.8
"""During the first part of the steps (``_SMALL_SHARE`` of all steps), the detector is trained on smaller scenes. Their
side is ``_SMALL_SCALE`` of the side of the detector's input. Smaller scenes take less time. Objects in them appear as
large as in whole images at full size, because the training crops images, which enlarges the objects (Touvron et al.
2019)."""
_RECIPE_VERSION: Final = 4
"""Increase this number whenever a change to the code changes the result of a training with the same plan and data. A
training that began with another version must not be resumed."""
_RNG_STREAMS: Final = {"classify": 8, "detect": 6}
"""For each stage, the number that selects its stream of random numbers. Other numbers here would give another model."""
_CHECKPOINT_INTERVAL_S: Final = 60.0
_LOG_INTERVAL_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The hyperparameters of a training. Model cards and checkpoints contain them under the names of these fields.

    ``*_epochs`` is the length of a stage in epochs. In an epoch, the number of images that are shown to the network is
    the number of photos plus the number of scenes in the data. ``*_rate`` is the maximum learning rate in a stage.
    After the maximum, the learning rate falls to 0 along half a cosine. ``*_batch`` is a batch size.
    """

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
    """The model whose weights are the initial weights of the training; empty for random weights."""


def train(photos: Photos, plan: Plan, folder: Path, log_line: LogLine, start: dict[str, Tensor]) -> dict[str, Tensor]:
    """Train the detector, or resume an interrupted training. A checkpoint is written every minute.

    :param folder: the folder that contains ``checkpoint.pt``.
    :param log_line: function that is called with each line about the progress.
    :param start: initial weights for the detector. They can be incomplete; missing weights are random.
    :returns: the final weights, which are an exponential moving average over the last part of the training.
    :raises CheckpointUnusable: the checkpoint in ``folder`` is damaged, or it belongs to another training.
    """
    torch.set_num_threads(plan.threads)
    path = folder / "checkpoint.pt"
    # The number of threads and the device can change between runs because, apart from rounding, they only affect the
    # speed.
    identity = {"recipe": _RECIPE_VERSION, "plan": asdict(replace(plan, threads=0, device="")), "labels": photos.labels, "data": photos.digest()}
    state: dict[str, Any] = {"stage": "classify", "step": 0, "identity": identity}
    if path.exists():
        state = checkpoint.read(path, identity)
        log_line(f"Resuming the stage {state['stage']} after step {state['step']}.")
    epoch_size = len(photos.images) + len(photos.scenes)
    if state["stage"] == "classify":
        torch.manual_seed(plan.seed)
        steps = math.ceil(plan.classify_epochs * epoch_size / plan.classify_batch)
        stage = _Stage("classify", plan, steps=steps, learning_rate=plan.classify_rate, checkpoint_path=path)
        classifier = Classifier(len(photos.labels), int(photos.fine.max()) + 1)
        classifier.load_state_dict(_with_prefix(start, "backbone."), strict=False)
        stage.run(classifier, state, _classify(photos, plan), log_line)
        state = {"stage": "detect", "step": 0, "identity": identity, "backbone": stage.averaged_weights("backbone.")}
        checkpoint.write(path, state)
    torch.manual_seed(plan.seed + 1)
    model = build_detector(len(photos.labels), plan.size)
    if state["step"] == 0:
        model.load_state_dict(_with_prefix(start, "head."), strict=False)
        model.backbone.load_state_dict(state["backbone"])
    model = fine_head.add_fine_head(model, int(photos.fine.max()) + 1, _FINE_WEIGHT)
    steps = math.ceil(plan.detect_epochs * epoch_size / plan.detect_batch)
    stage = _Stage("detect", plan, steps=steps, learning_rate=plan.detect_rate, checkpoint_path=path)
    stage.run(model, state, _detect(photos, plan), log_line)
    return fine_head.remove_fine_head(stage.averaged_weights(""))


def _with_prefix(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name.startswith(prefix)}


ComputeLosses = Callable[[nn.Module, list[Any]], dict[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Task:
    """The task that a stage trains: how to make a sample, the batch size, and how to compute the losses for a batch.

    The arguments of ``make_sample`` are a random generator and the share of the stage's steps that have been done, from
    0 to 1.
    """

    make_sample: Callable[[np.random.Generator, float], Any]
    batch_size: int
    compute_losses: ComputeLosses


def _classify(photos: Photos, plan: Plan) -> Task:
    def make_sample(rng: np.random.Generator, _done: float) -> tuple[NDArray[np.uint8], int, int]:
        index = photos.sample(rng)
        image = augment.photometric_distort(augment.random_crop(photos.images[index], plan.classify_size, rng, min_area=0.15), rng)
        if rng.random() < 0.4:
            augment.random_erase(image, rng)
        return image, int(photos.coarse[index]), int(photos.fine[index])

    def compute_losses(model: nn.Module, samples: list[tuple[NDArray[np.uint8], int, int]]) -> dict[str, Tensor]:
        images = _to_tensor(np.stack([sample[0] for sample in samples]), plan.device)
        coarse, fine = (torch.tensor([sample[column] for sample in samples], device=plan.device) for column in (1, 2))
        mixed, order, share = _cutmix(images)
        outputs = model((mixed - MEAN) / STD)
        losses = {"coarse": _mixed_loss([logits[0] for logits in outputs], coarse, order, share)}
        return losses | {"fine": _FINE_WEIGHT * _mixed_loss([logits[1] for logits in outputs], fine, order, share)}

    return Task(make_sample, plan.classify_batch, compute_losses)


def _detect(photos: Photos, plan: Plan) -> Task:
    small_size = max(MIN_SIZE, round(_SMALL_SCALE * plan.size / 32) * 32)

    def make_sample(rng: np.random.Generator, done: float) -> Scene:
        return scenes.compose(photos, small_size if done < _SMALL_SHARE else plan.size, rng)

    def compute_losses(model: Any, samples: list[Scene]) -> dict[str, Tensor]:
        images = _to_tensor(np.stack([scene.image for scene in samples]), plan.device)
        targets = [
            {
                name: torch.from_numpy(array).to(plan.device)
                for name, array in (("boxes", scene.boxes), ("labels", scene.classes + 1), ("fine", scene.fine))
            }
            for scene in samples
        ]
        model.transform.fixed_size = images.shape[:1:-1]
        losses: dict[str, Tensor] = model(list(images), targets)
        return losses

    return Task(make_sample, plan.detect_batch, compute_losses)


@dataclass(slots=True)
class _Stage:
    """One of the two stages of a training.

    ``steps`` is the number of steps in the stage, ``learning_rate`` is its maximum learning rate, and
    ``checkpoint_path`` is the file to which checkpoints are written.
    """

    name: str
    plan: Plan
    steps: int
    learning_rate: float
    checkpoint_path: Path
    _averaged: Any = field(default=None)

    def run(self, model: nn.Module, state: dict[str, Any], task: Task, log_line: LogLine) -> None:
        """Run the remaining steps of the stage.

        :param state: the contents of the last checkpoint, or the state before the first step.
        """
        plan = self.plan
        model = model.to(plan.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's type annotations lack this overload
        optimizer = torch.optim.AdamW(_parameter_groups(model, _WEIGHT_DECAY[self.name]), self.learning_rate)
        # The average is over about the last 2% of the steps. These are enough steps to smooth the weights, but so few
        # that the average follows the training.
        update = torch.optim.swa_utils.get_ema_multi_avg_fn(1 - 1 / max(10.0, self.steps / 50))  # type: ignore[no-untyped-call]  # torch has no type annotations for it
        self._averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=update, use_buffers=True)
        if state["step"]:
            model.load_state_dict(state["model"])
            self._averaged.load_state_dict(state["average"])
            optimizer.load_state_dict(state["optimizer"])
        model.train()
        progress = Progress(state["step"], self.steps)
        identity, bfloat16 = state["identity"], _has_bfloat16(plan.device)
        for step, samples in _batches(task, plan, self.name, state["step"], self.steps):
            torch.manual_seed(hash((plan.seed, step)))
            with torch.autocast(plan.device, torch.bfloat16, enabled=bfloat16):
                losses = task.compute_losses(model, samples)
            loss = torch.stack([part.float() for part in losses.values()]).sum()
            _optimizer_step(optimizer, loss, self.learning_rate * _learning_rate_factor(step, self.steps))
            self._averaged.update_parameters(model)
            if progress.log_due(_LOG_INTERVAL_S) or step + 1 == self.steps:
                parts = "  ".join(f"{name.split('_')[0]} {value.item():.3f}" for name, value in losses.items())
                log_line(f"{self.name:<9} {progress.format_line(step + 1)}  {parts}")
            if progress.checkpoint_due(_CHECKPOINT_INTERVAL_S) or step + 1 == self.steps:
                weights = {"model": model.state_dict(), "average": self._averaged.state_dict(), "optimizer": optimizer.state_dict()}
                checkpoint.write(self.checkpoint_path, {"stage": self.name, "step": step + 1, "identity": identity, **weights})

    def averaged_weights(self, prefix: str) -> dict[str, Tensor]:
        """Return the averaged weights whose names start with ``prefix``, with the prefix removed."""
        weights = self._averaged.module.state_dict()
        return {name.removeprefix(prefix): tensor.cpu() for name, tensor in weights.items() if name.startswith(prefix)}


def _batches(task: Task, plan: Plan, stage: str, first_step: int, steps: int) -> Iterator[tuple[int, list[Any]]]:
    """Yield the number and the samples of each step.

    Threads make batches in advance while the model computes; they run in parallel because OpenCV and numpy release the
    GIL.
    """

    def make(step: int) -> list[Any]:
        rng = np.random.default_rng([plan.seed, _RNG_STREAMS[stage], step])
        return [task.make_sample(rng, step / steps) for _ in range(task.batch_size)]

    pending: deque[Future[list[Any]]] = deque()
    with ThreadPoolExecutor(max(1, plan.threads // 2)) as pool:
        to_submit = iter(range(first_step, steps))
        for step in range(first_step, steps):
            while len(pending) < plan.threads and (following := next(to_submit, None)) is not None:
                pending.append(pool.submit(make, following))
            yield step, pending.popleft().result()


def _has_bfloat16(device: str) -> bool:
    """Return whether the device has instructions for bfloat16.

    A CPU without them takes longer for a step in bfloat16 than for one in float32: twice as long with AVX-512, and 8 to
    12 times as long without (observed with torch 2.15.0).
    """
    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _parameter_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Return parameter groups for the optimizer.

    Weight decay is applied to the weights of convolutions and linear layers, but not to biases and to the parameters of
    normalization layers.
    """
    groups: tuple[list[Tensor], list[Tensor]] = ([], [])
    for parameter in model.parameters():
        groups[parameter.ndim > 1].append(parameter)
    return [{"params": groups[0], "weight_decay": 0.0}, {"params": groups[1], "weight_decay": decay}]


def _learning_rate_factor(step: int, steps: int) -> float:
    """Return the factor by which the maximum learning rate is multiplied in a step of a stage.

    The factor is half a cosine that falls from 1 to 0 during the stage, multiplied by a linear warmup.
    """
    done = step / steps
    return min(1.0, (done + 1e-3) / 0.03) * 0.5 * (1 + math.cos(math.pi * done))


def _optimizer_step(optimizer: torch.optim.Optimizer, loss: Tensor, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch has no type annotations for it
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, 5.0)
    if torch.isfinite(norm):  # a batch whose gradient overflows is skipped, because it would make all weights unusable
        optimizer.step()


def _cutmix(images: Tensor) -> tuple[Tensor, Tensor, float]:
    """With probability 0.6, paste a part of another image in the batch on each image (CutMix, Yun et al. 2019).

    :returns: the images, the index of the other image for each image, and the share of each original image that is
        still visible. The share is 1 if nothing was pasted.
    """
    size = images.shape[-1]
    order = torch.randperm(len(images))
    if float(torch.rand(1)) < 0.4:
        return images, order, 1.0
    side = int(size * float(torch.rand(1)) * 0.75)
    y, x = (int(torch.randint(0, size - side + 1, (1,))) for _ in range(2))
    mixed = images.clone()
    mixed[:, :, y : y + side, x : x + side] = images[order, :, y : y + side, x : x + side]
    return mixed, order, 1 - (side / size) ** 2


def _mixed_loss(outputs: list[Tensor], truth: Tensor, other: Tensor, share: float) -> Tensor:
    losses = []
    for logits in outputs:
        first = nn.functional.cross_entropy(logits.float(), truth, label_smoothing=_LABEL_SMOOTHING)
        second = nn.functional.cross_entropy(logits.float(), truth[other], label_smoothing=_LABEL_SMOOTHING)
        losses.append(share * first + (1 - share) * second)
    return torch.stack(losses).mean()


def _to_tensor(images: NDArray[np.uint8], device: str) -> Tensor:
    """Convert uint8 images ``[N, H, W, 3]`` to floats ``[N, 3, H, W]`` from 0 to 1, in channels-last memory format."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
