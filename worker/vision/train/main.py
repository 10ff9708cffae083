"""Train and evaluate a detector.

SOURCE is either a COCO JSON file with boxes, or a folder of photos with one label each, which contains the files
train.txt, val.txt and classes.csv. Scenes with known boxes are composed from such photos. docs/models.md describes both
forms of SOURCE.
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
from worker.vision.train.checkpoint import CheckpointUnusable
from worker.vision.train.datasets import Photos
from worker.vision.train.progress import LogLine, open_log

_BARCODE_SEED: Final = 1


def run_train(arguments: list[str]) -> None:
    """Train a detector, or resume an interrupted training.

    The files ``NAME.safetensors``, ``NAME.json`` and ``NAME.md`` are written to the folder ``--out``.
    """
    defaults = trainer.Plan()
    parser = argparse.ArgumentParser(prog="scripts/train", description=__doc__, epilog="To resume an interrupted training, run the same command again.")
    parser.add_argument("source", type=Path, metavar="SOURCE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the checkpoint, the log and the final model")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder with the images of a COCO file (default: the folder of the COCO file)")
    parser.add_argument("--name", type=_name, default="mine", help="name of the model (default: %(default)s)")
    parser.add_argument("--version", default="1", help="version of the model (default: %(default)s)")
    parser.add_argument("--start", metavar="MODEL", help="start from the weights of this model: grocery for the bundled model, or the path of a checkpoint (default: random weights)")
    parser.add_argument("--classify-epochs", type=float, help=f"number of epochs in the first stage, which trains the backbone as a classifier (default: {defaults.classify_epochs}, or 0 with --start)")
    parser.add_argument("--detect-epochs", type=float, default=defaults.detect_epochs, help="number of epochs in the second stage, which trains the whole detector (default: %(default)s)")
    parser.add_argument("--size", type=_size, default=defaults.size, help=f"side of the model's input in pixels, at least {trainer.MIN_SIZE} (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="random seed (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=defaults.threads, help="number of CPU threads (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu", help="device for the training, cpu or cuda (default on this machine: %(default)s)")
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no usable GPU. Use --device cpu.")
    imaging.limit_threads(1)
    if args.classify_epochs is None:
        args.classify_epochs = 0.0 if args.start else defaults.classify_epochs
    log_line = open_log(args.out)
    log_line(f"Reading {args.source}.")
    learn, fold = dataset_readers.read(args.source, "train", args.images).split()
    fold = fold.resized(eval_scenes.SIDE)
    log_line(f"{len(learn.images)} photos and {len(learn.scenes)} scenes are used for training. {len(fold.images)} photos and {len(fold.scenes)} scenes are held out.")
    name, weights = pretrained_weights.read(args.start, learn.labels) if args.start else ("", {})
    plan = trainer.Plan(
        seed=args.seed, size=args.size, classify_epochs=args.classify_epochs, detect_epochs=args.detect_epochs, threads=args.threads,
        device=args.device, start=name,
    )  # fmt: skip
    _finish(trainer.train(learn, plan, args.out, log_line, weights), plan, fold, args, log_line)


def _finish(trained: dict[str, Tensor], plan: trainer.Plan, fold: Photos, args: argparse.Namespace, log_line: LogLine) -> None:
    """Write the model, and evaluate it on the held-out fold.

    The fold is used to choose the score threshold, and to measure the loss of mAP50 caused by half precision. Both
    values are written to the model card.
    """
    weights = export.write_weights(trained, args.out, args.name)
    card = {
        "name": args.name, "version": args.version, "architecture": model_registry.BUNDLED, "labels": fold.labels,
        "size": args.size, "threshold": evaluate.SEEN_SCORE, "trained_on": args.source.name, "trained": time.strftime("%Y-%m-%d"), **asdict(plan),
    }  # fmt: skip
    export.write_card(args.out, card)
    if not len(fold.images):
        log_line(f"There is too little data for a held-out fold. The model uses the threshold {evaluate.SEEN_SCORE} and full precision.")
        return
    scores = {"full": _evaluate_fold(weights, "cpu", "full", fold, args.threads)}
    scores |= {f"half on {device}": _evaluate_fold(weights, device, "half", fold, args.threads) for device in sorted({"cpu", args.device}) if runtimes.supports_half(device)}
    full = scores.pop("full")
    card |= {"threshold": round(min(full["threshold"], evaluate.SEEN_SCORE), 2), "fold_map50": round(full["map50"], 4)}
    card["half_loss"] = max((round(full["map50"] - half["map50"], 4) for half in scores.values()), default=None)
    export.write_card(args.out, card)
    log_line(f"Scores on the held-out fold: {json.dumps({'full': full} | scores)}")
    log_line(f"The model has been written to {weights}. To use it, set VISION_MODEL={weights.resolve()}")


def _evaluate_fold(weights: Path, device: str, precision: runtimes.Precision, fold: Photos, threads: int) -> dict[str, float]:
    detector = detect.load(str(weights), threads=threads, device=device, precision=precision)
    if fold.scenes:
        return evaluate.evaluate_scenes(detector, fold.scenes, len(fold.scenes), fold.labels)
    scores = evaluate.evaluate_photos(detector, fold.images, [fold.labels[label] for label in fold.coarse])
    return scores | evaluate.evaluate_scenes(detector, evaluate.compose_scenes(fold, evaluate.SCENES), evaluate.SCENES, fold.labels)


def run_evaluate(arguments: list[str]) -> None:
    """Evaluate a model on data on which it was not trained, and print the results as one JSON object."""
    parser = argparse.ArgumentParser(prog="scripts/evaluate", description=__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", nargs="?", help="data for the evaluation; not needed with --barcodes")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder with the images of a COCO file (default: the folder of the COCO file)")
    parser.add_argument("--model", default=model_registry.BUNDLED, metavar="NAME", help="the model: grocery for the bundled one, the name of a builder in torchvision, or the path of a checkpoint (default: %(default)s)")
    parser.add_argument("--precision", choices=("auto", "full", "half"), default="auto", help="precision of the model; auto selects the precision that a worker would use (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="device for the model, cpu or cuda (default: cuda if there is a GPU)")
    parser.add_argument("--split", default="val", help="for a folder, the name of the split; the file SPLIT.txt lists its photos (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=evaluate.SCENES, help="number of scenes to compose from the photos in a folder (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="number of CPU threads (default: %(default)s)")
    parser.add_argument("--barcodes", action="store_true", help="instead of evaluating a model, measure how many barcodes are read in drawn images that are degraded as camera images can be")
    parser.add_argument("--pictures", type=int, default=100, help="with --barcodes: number of images for each strength of each degradation (default: %(default)s)")
    args = parser.parse_args(arguments)
    if args.barcodes:
        from worker.vision.train import barcode_read_rates  # noqa: PLC0415 -- this module needs zxing-cpp, which can be missing on a machine that only trains

        print(barcode_read_rates.format_table(barcode_read_rates.measure(args.pictures, _BARCODE_SEED)))  # noqa: T201 -- output of a command
        return
    if args.source is None:
        parser.error("SOURCE is missing. Name a folder or a COCO JSON file, or use --barcodes.")
    detector = detect.load(args.model, threads=args.threads, device=args.device, precision=args.precision)
    data = dataset_readers.read(args.source, args.split, args.images, eval_scenes.SIDE)
    if data.scenes:
        scores = evaluate.evaluate_scenes(detector, data.scenes, len(data.scenes), data.labels)
    else:
        rows = dataset_readers.list_photos(args.source, args.split)
        scores = evaluate.evaluate_photos(detector, _full_size_images(rows), [data.labels[coarse] for _, _, coarse in rows])
        scores |= evaluate.evaluate_scenes(detector, evaluate.compose_scenes(data, args.scenes), args.scenes, data.labels)
    # A threshold must be chosen on the held-out fold of the training data, never on evaluation data.
    del scores["threshold"]
    model_info: dict[str, Any] = {**detector.info, "device": detector.device, "precision": detector.precision}
    print(json.dumps(model_info | {name: round(value, 4) for name, value in scores.items()}, indent=1))  # noqa: T201 -- output of a command


def _size(text: str) -> int:
    if not text.isdecimal() or not trainer.MIN_SIZE <= int(text) <= 2048:
        raise argparse.ArgumentTypeError(f"The size is not valid. Use a number of pixels from {trainer.MIN_SIZE} to 2048.")
    return int(text)


def _name(text: str) -> str:
    if not text.replace("-", "").replace("_", "").isalnum():
        raise argparse.ArgumentTypeError("The name is not valid. Use only letters, digits, - and _.")
    return text


def _full_size_images(rows: list[tuple[Path, int, int]]) -> Iterator[Any]:
    return (dataset_readers.read_image(path) for path, _, _ in rows)


TOOLS: Final[dict[str, Callable[[list[str]], None]]] = {"train": run_train, "evaluate": run_evaluate}


def main() -> int:
    """Run ``train`` or ``evaluate``, as the first command-line argument says.

    If the data, the model or the checkpoint cannot be used, the reason is printed on standard error.

    :returns: the exit code.
    """
    try:
        TOOLS[sys.argv[1]](sys.argv[2:])
    except (dataset_readers.DataUnusable, model_registry.ModelUnusable, CheckpointUnusable) as error:
        print(error, file=sys.stderr)  # noqa: T201 -- error message of a command
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
