"""Draw the sample images and write their manifest: ``python -m worker.vision.train.samples FOLDER``."""

import csv
import sys
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from worker.vision import barcode
from worker.vision.imaging import encode_jpeg
from worker.vision.train import drawings
from worker.vision.train.drawings import Image, Rng

SEED: Final = 20
WIDTH: Final = 1280
HEIGHT: Final = 960
_CODES: Final = {"Milk": "4006381333931", "Juice": "5901234123457", "Yoghurt": "9780201379624"}
_SHELVES: Final = (
    ("Apple", "Orange", "Banana"),
    ("Tomato", "Cucumber", "Carrots"),
    ("Lemon", "Lime", "Kiwi"),
    ("Aubergine", "Red-Beet", "Onion"),
    ("Pear", "Plum", "Potato"),
    ("Apple", "Tomato", "Lemon"),
    ("Orange", "Carrots", "Aubergine"),
    ("Banana", "Cucumber", "Lime"),
)


def main() -> None:
    """Draw all sample images, and write the images and ``manifest.csv`` to the folder given on the command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    rows = []
    for number, labels in enumerate(_SHELVES, 1):
        name = f"shelf-{number:02}.jpg"
        (folder / name).write_bytes(encode_jpeg(draw_shelf(labels, rng), 82))
        rows.append([name, f"2026-01-15T{8 + number:02}:00:00Z", "drawn", f"camera-{1 + number % 2}", ""])
    for number, (label, code) in enumerate(_CODES.items(), 1):
        for side, declared in (("a", code), ("b", "4006381333931")):
            name = f"carton-{number:02}{side}.jpg"
            (folder / name).write_bytes(encode_jpeg(draw_cartons(label, code, rng), 82))
            rows.append([name, f"2026-01-15T18:{number:02}:00Z", "drawn", "camera-3", declared])
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "timestamp", "store_name", "camera_id", "barcode"])
        writer.writerows(rows)
    print(f"{len(rows)} images have been written to {folder}.")  # noqa: T201 -- output of a command


def draw_shelf(labels: tuple[str, ...], rng: Rng) -> Image:
    """Draw a shelf that is divided into parts, with one kind of produce in each part."""
    scene = drawings.draw_background(WIDTH, HEIGHT, rng)
    part_width = WIDTH // len(labels)
    for column, label in enumerate(labels):
        for row in range(2):
            piece, mask = drawings.draw_produce(label, int(rng.uniform(330, 400)), rng)
            height, width = mask.shape
            x = column * part_width + max(0, (part_width - width) // 2) + int(rng.integers(-8, 9))
            y = row * HEIGHT // 2 + (HEIGHT // 2 - height) // 2
            drawings.paste(scene, piece, mask, min(max(0, x), WIDTH - width), y)
    return scene


def draw_cartons(label: str, code: str, rng: Rng) -> Image:
    """Draw two cartons of the same kind, both with the barcode ``code``."""
    scene = drawings.draw_background(WIDTH, HEIGHT, rng)
    _, bars = barcode.render(code, "EAN13", scale=2)
    with_quiet_zone = cv2.copyMakeBorder(np.dstack([bars] * 3), 10, 10, 24, 24, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    for column in range(2):
        piece, mask = drawings.draw_carton(label, 800, rng, with_quiet_zone)
        drawings.paste(scene, piece, mask, 100 + column * 580, 120)
    return scene


if __name__ == "__main__":
    main()
