"""Train and judge the detector on a folder of labelled photos (``train.txt``, ``val.txt``, ``classes.csv``).

``scripts/train FOLDER --out DIR`` goes on where a run was ended; ``scripts/evaluate FOLDER`` judges a model.
"""

import argparse
import json
import sys
from pathlib import Path

import cv2

from worker.vision import detect, zoo
from worker.vision.train import data, fit, judge, scenes
from worker.vision.train.export import export


def train(arguments: list[str]) -> None:
    """Train; the model lands in ``--out`` as ``grocery.safetensors`` and ``grocery.json``."""
    usual = fit.Plan()
    parser = argparse.ArgumentParser(prog="scripts/train", description=__doc__)
    parser.add_argument("folder", type=Path, help="photos: train.txt (path, fine class, coarse class) and classes.csv")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoints, log and the final model")
    parser.add_argument("--classify-minutes", type=float, default=usual.classify_minutes, help="default: %(default)s")
    parser.add_argument("--detect-minutes", type=float, default=usual.detect_minutes, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=usual.seed, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=usual.threads, help="default: %(default)s")
    parser.add_argument("--version", default="0.1", help="written on the model's card (default: %(default)s)")
    parser.add_argument("--threshold", type=float, default=0.3, help="least score of a detection (default: %(default)s)")
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    plan = fit.Plan(seed=given.seed, classify_minutes=given.classify_minutes, detect_minutes=given.detect_minutes, threads=given.threads)
    say = fit.write_log(given.out)
    say(f"reading {given.folder}")
    known = scenes.load(given.folder, "train")
    final = fit.train(known, plan, given.out, say)
    notes = {"trained_minutes": plan.classify_minutes + plan.detect_minutes, "seed": plan.seed, "photos": len(known.pictures)}
    export(final, given.out, name="grocery", version=given.version, threshold=given.threshold, notes=notes)
    say(f"the model is {given.out / 'grocery.safetensors'}")


def evaluate(arguments: list[str]) -> None:
    """Judge a model on photos that it was not trained on; prints one JSON object."""
    parser = argparse.ArgumentParser(prog="scripts/evaluate", description=__doc__)
    parser.add_argument("folder", type=Path, help="photos: val.txt and classes.csv")
    parser.add_argument("--model", default=zoo.BUNDLED, metavar="NAME", help="the bundled grocery, a torchvision builder, or a checkpoint (default: %(default)s)")
    parser.add_argument("--split", default="val", help="default: %(default)s")
    parser.add_argument("--scenes", type=int, default=judge.SCENES, help="composed scenes (default: %(default)s)")
    given = parser.parse_args(arguments)
    detector = detect.load(given.model, threads=2)
    known = data.read_folder(given.folder, given.split)
    found = judge.photos(detector, given.folder, given.split, known.labels) | judge.composed(detector, known, given.scenes)
    print(json.dumps(detector.info | {name: round(value, 4) for name, value in found.items()}, indent=1))  # noqa: T201 -- the result of a tool


if __name__ == "__main__":
    {"train": train, "evaluate": evaluate}[sys.argv[1]](sys.argv[2:])
