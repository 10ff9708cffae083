"""Train and judge a detector.

SOURCE is a folder of photos with one label each (train.txt, val.txt, classes.csv: boxes are made known by composing scenes from them) or a
COCO JSON file with boxes. docs/models.md describes both.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from worker.vision import imaging
from worker.vision.detection import detect, model_registry, runtimes
from worker.vision.train import dataset_readers, eval_scenes, evaluate, export, pretrained_weights, trainer
from worker.vision.train.checkpoint import OtherTraining
from worker.vision.train.datasets import Photos
from worker.vision.train.progress import Say, write_log

_BARCODE_SEED: Final = 1


def run_train(arguments: list[str]) -> None:
    """Train; a run that was ended goes on. The model lands in ``--out`` as ``NAME.safetensors``, ``NAME.json`` and ``NAME.md``."""
    usual = trainer.Plan()
    parser = argparse.ArgumentParser(prog="scripts/train", description=__doc__, epilog="Called again with the same --out, it goes on where it was ended.")
    parser.add_argument("source", type=Path, metavar="SOURCE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoints, log and the final model")
    parser.add_argument("--images", type=Path, metavar="DIR", help="where the pictures of a COCO file lie (default: beside it)")
    parser.add_argument("--name", type=_name, default="mine", help="the model's name (default: %(default)s)")
    parser.add_argument("--version", default="1", help="written on the model's card (default: %(default)s)")
    parser.add_argument("--start", metavar="MODEL", help="begin from this model's weights: the bundled grocery, or a checkpoint's path (default: random ones)")
    parser.add_argument("--classify-epochs", type=float, help=f"the backbone learns to classify first (default: {usual.classify_epochs}; with --start 0)")
    parser.add_argument("--detect-epochs", type=float, default=usual.detect_epochs, help="then the whole learns to detect (default: %(default)s)")
    parser.add_argument("--size", type=_size, default=usual.size, help=f"side of the model's input in pixels, at least {trainer.LEAST_SIZE} (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=usual.seed, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=usual.threads, help="default: %(default)s")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda (default here: %(default)s)")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU that torch can use here")
    imaging.limit_threads(1)
    if given.classify_epochs is None:
        given.classify_epochs = 0.0 if given.start else usual.classify_epochs
    say = write_log(given.out)
    say(f"reading {given.source}")
    learn, fold = dataset_readers.read(given.source, "train", given.images).split()
    fold = fold.reduced(eval_scenes.SIDE)
    say(f"{len(learn.pictures)} photos and {len(learn.scenes)} scenes to learn from, {len(fold.pictures)} and {len(fold.scenes)} held out")
    name, weights = pretrained_weights.read(given.start, learn.labels) if given.start else ("", {})
    plan = trainer.Plan(
        seed=given.seed, size=given.size, classify_epochs=given.classify_epochs, detect_epochs=given.detect_epochs, threads=given.threads,
        device=given.device, start=name,
    )  # fmt: skip
    _finish(trainer.train(learn, plan, given.out, say, weights), plan, fold, given, say)


def _finish(trained: dict[str, Tensor], plan: trainer.Plan, fold: Photos, given: argparse.Namespace, say: Say) -> None:
    """Write the model; choose its threshold, and measure what half precision costs, on the fold that was held out."""
    weights = export.write_weights(trained, given.out, given.name)
    card = {
        "name": given.name, "version": given.version, "architecture": model_registry.BUNDLED, "labels": fold.labels,
        "size": given.size, "threshold": evaluate.SEEN, "trained_on": given.source.name, "trained": time.strftime("%Y-%m-%d"), **asdict(plan),
    }  # fmt: skip
    export.write_card(given.out, card)
    if not len(fold.pictures):
        say(f"too little data to hold a fold out: threshold {evaluate.SEEN}, full precision")
        return
    found = {"full": _judge(weights, "cpu", "full", fold, given.threads)}
    found |= {f"half on {device}": _judge(weights, device, "half", fold, given.threads) for device in sorted({"cpu", given.device}) if runtimes.supports_half(device)}
    full = found.pop("full")
    card |= {"threshold": round(min(full["threshold"], evaluate.SEEN), 2), "fold_map50": round(full["map50"], 4)}
    card["half_loss"] = max((round(full["map50"] - half["map50"], 4) for half in found.values()), default=None)
    export.write_card(given.out, card)
    say(f"on the fold that was held out: {json.dumps({'full': full} | found)}")
    say(f"the model is {weights}; use it with VISION_MODEL={weights.resolve()}")


def _judge(weights: Path, device: str, precision: runtimes.Precision, fold: Photos, threads: int) -> dict[str, float]:
    detector = detect.load(str(weights), threads=threads, device=device, precision=precision)
    if fold.scenes:
        return evaluate.scenes(detector, fold.scenes, len(fold.scenes), fold.labels)
    found = evaluate.photos(detector, fold.pictures, [fold.labels[one] for one in fold.coarse])
    return found | evaluate.scenes(detector, evaluate.composed(fold, evaluate.SCENES), evaluate.SCENES, fold.labels)


def run_evaluate(arguments: list[str]) -> None:
    """Judge a model on data that it was not trained on; prints one JSON object."""
    parser = argparse.ArgumentParser(prog="scripts/evaluate", description=__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", nargs="?", help="needed unless --barcodes is given")
    parser.add_argument("--images", type=Path, metavar="DIR", help="where the pictures of a COCO file lie (default: beside it)")
    parser.add_argument("--model", default=model_registry.BUNDLED, metavar="NAME", help="the bundled grocery, a torchvision builder, or a checkpoint's path (default: %(default)s)")
    parser.add_argument("--precision", choices=("auto", "full", "half"), default="auto", help="auto is what a worker takes (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    parser.add_argument("--split", default="val", help="of a folder (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=evaluate.SCENES, help="composed from a folder's photos (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--barcodes", action="store_true", help="instead: read rates of drawn barcodes, degraded as cameras do")
    parser.add_argument("--pictures", type=int, default=100, help="with --barcodes: of each strength of each kind (default: %(default)s)")
    given = parser.parse_args(arguments)
    if given.barcodes:
        from worker.vision.train import barcode_read_rates  # noqa: PLC0415 -- draws with zxing-cpp, which a machine that only trains may lack

        print(barcode_read_rates.table(barcode_read_rates.read_rates(given.pictures, _BARCODE_SEED)))  # noqa: T201 -- the result of a tool
        return
    if given.source is None:
        parser.error("SOURCE is needed")
    detector = detect.load(given.model, threads=given.threads, device=given.device, precision=given.precision)
    known = dataset_readers.read(given.source, given.split, given.images, eval_scenes.SIDE)
    if known.scenes:
        found = evaluate.scenes(detector, known.scenes, len(known.scenes), known.labels)
    else:
        rows = dataset_readers.listed(given.source, given.split)
        found = evaluate.photos(detector, _whole(rows), [known.labels[coarse] for _, _, coarse in rows])
        found |= evaluate.scenes(detector, evaluate.composed(known, given.scenes), given.scenes, known.labels)
    del found["threshold"]  # chosen on a fold of train, never here
    said: dict[str, Any] = {**detector.info, "device": detector.device, "precision": detector.precision}
    print(json.dumps(said | {name: round(value, 4) for name, value in found.items()}, indent=1))  # noqa: T201 -- as above


def _size(text: str) -> int:
    if not text.isdecimal() or not trainer.LEAST_SIZE <= int(text) <= 2048:
        raise argparse.ArgumentTypeError(f"a size is a number of pixels from {trainer.LEAST_SIZE} to 2048")
    return int(text)


def _name(text: str) -> str:
    if not text.replace("-", "").replace("_", "").isalnum():
        raise argparse.ArgumentTypeError("a name is made of letters, digits, - and _")
    return text


def _whole(rows: list[tuple[Path, int, int]]) -> Iterator[Any]:
    return (dataset_readers.picture(path) for path, _, _ in rows)


TOOLS: Final[dict[str, Callable[[list[str]], None]]] = {"train": run_train, "evaluate": run_evaluate}


def main() -> int:
    """Run one of the tools; what is wrong with the data or the model is said in a sentence."""
    try:
        TOOLS[sys.argv[1]](sys.argv[2:])
    except (dataset_readers.DataUnusable, model_registry.ModelUnusable, OtherTraining) as error:
        print(error, file=sys.stderr)  # noqa: T201 -- as above
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
