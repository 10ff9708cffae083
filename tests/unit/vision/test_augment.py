"""Augmentations: the contract's names, the same bytes again, boxes that move along."""

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from shared.contract import AUGMENTATIONS, DEFAULT_AUGMENTATIONS
from worker.vision import augment

RGB = np.random.default_rng(2).integers(0, 256, (96, 128, 3), np.uint8)


def test_the_worker_knows_exactly_the_names_of_the_contract() -> None:
    assert tuple(augment.OPERATIONS) == AUGMENTATIONS
    assert set(DEFAULT_AUGMENTATIONS) <= set(AUGMENTATIONS)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_image_gives_the_same_bytes_and_another_does_not_disturb_it(name: str) -> None:
    before = RGB.copy()
    first = augment.apply(name, RGB, [[10, 10, 60, 50]], image_id="a")
    again = augment.apply(name, RGB, [[10, 10, 60, 50]], image_id="a")
    assert (first.rgb == again.rgb).all()
    assert (first.params, first.boxes) == (again.params, again.boxes)
    assert first.rgb.dtype == np.uint8
    assert first.rgb.shape == RGB.shape
    assert (before == RGB).all()


def test_a_flip_is_torchvisions() -> None:
    made = augment.apply("horizontal_flip", RGB, [[10, 20, 60, 50]], image_id="a")
    boxes = tv_tensors.BoundingBoxes(torch.tensor([[10.0, 20, 60, 50]]), format="XYXY", canvas_size=(96, 128))
    expected = v2.functional.horizontal_flip(boxes)
    assert made.boxes == [(0, expected[0].tolist())]
    picture = v2.functional.horizontal_flip(torch.from_numpy(RGB).permute(2, 0, 1))
    assert (made.rgb == picture.permute(1, 2, 0).numpy()).all()


def test_a_turned_box_is_torchvisions_within_two_pixels() -> None:
    made = augment.apply("rotate", RGB, [[40, 30, 80, 60]], image_id="b")
    boxes = tv_tensors.BoundingBoxes(torch.tensor([[40.0, 30, 80, 60]]), format="XYXY", canvas_size=(96, 128))
    expected = v2.functional.rotate(boxes, made.params["degrees"])[0].tolist()
    assert np.abs(np.array(made.boxes[0][1]) - expected).max() <= 2


def test_a_box_of_which_little_remains_vanishes() -> None:
    shift = np.array([[1.0, 0, 100], [0, 1, 0], [0, 0, 1]])
    assert augment.move_box([0, 0, 20, 20], shift, 128, 96) == [100, 0, 120, 20]
    assert augment.move_box([20, 0, 60, 20], shift, 128, 96) is None
    assert augment.move_box([60, 0, 80, 20], shift, 128, 96) is None
