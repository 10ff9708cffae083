"""Training: reading labelled data, scenes with their boxes, a model that learned from drawings, and going on after an end."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.paths import ROOT
from worker.vision import imaging
from worker.vision.detection import detect, model_registry, network
from worker.vision.train import (
    augment,
    dataset_readers,
    drawings,
    eval_scenes,
    evaluate,
    fine_head,
    main,
    pretrained_weights,
    scenes,
    trainer,
)
from worker.vision.train.checkpoint import OtherTraining
from worker.vision.train.datasets import UNKNOWN, Photos, Scene
from worker.vision.train.progress import Say

NAMES = ("Banana", "Aubergine", "Carrots")


def drawn(seed: int, side: int = 160) -> tuple[imaging.Rgb, list[tuple[list[int], str]]]:
    """Draw a shelf with one or two things on it; give their boxes as COCO has them."""
    rng = np.random.default_rng(seed)
    picture = drawings.backdrop(side, side, rng)
    truths = []
    for half in range(int(rng.integers(1, 3))):
        name = NAMES[int(rng.integers(len(NAMES)))]
        piece, mask = drawings.produce(name, int(rng.uniform(60, 76)), rng)
        x, y = half * side // 2, int(rng.integers(0, side - mask.shape[0]))
        drawings.paste(picture, piece, mask, x, y)
        truths.append(([x, y, mask.shape[1], mask.shape[0]], name))
    return picture, truths


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 120 drawn shelves as a user's own data: JPEGs and a COCO file with category numbers of its own."""
    folder = tmp_path_factory.mktemp("coco")
    said: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 7 * at + 3, "name": name} for at, name in enumerate(NAMES)]}
    for number in range(120):
        picture, truths = drawn(number)
        (folder / f"{number}.jpg").write_bytes(imaging.encode_jpeg(picture))
        said["images"].append({"id": number, "file_name": f"{number}.jpg"})
        said["annotations"] += [{"image_id": number, "category_id": 7 * NAMES.index(name) + 3, "bbox": box} for box, name in truths]
    path = folder / "shelves.json"
    path.write_text(json.dumps(said))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "worker.vision.train.main", *map(str, arguments)]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_model_learns_from_coco_goes_on_after_a_kill_and_is_used_as_it_lies_there(coco: Path, tmp_path: Path) -> None:
    """Two minutes of training on drawings: far from good, and far from chance."""
    out = tmp_path / "out"
    train = command(
        "train", coco, "--out", out, "--name", "shelves", "--size", 128, "--classify-epochs", 4, "--detect-epochs", 20, "--threads", 1, "--device", "cpu"
    )
    with subprocess.Popen(train, cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        until = time.monotonic() + 600
        while not (out / "checkpoint.pt").exists() and time.monotonic() < until:
            time.sleep(0.2)
        first.send_signal(signal.SIGKILL)
    assert (out / "checkpoint.pt").exists()
    second = subprocess.run(train, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert second.returncode == 0, second.stderr
    assert "going on with" in second.stdout
    log = [json.loads(line)["line"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert any("detect" in line and "100%" in line for line in log)
    card = json.loads((out / "shelves.json").read_text())
    assert card["labels"] == list(NAMES)
    assert 0 < card["threshold"] <= 0.3
    assert "shelves 1" in (out / "shelves.md").read_text()
    judged = subprocess.run(
        command("evaluate", coco, "--model", out / "shelves.safetensors", "--device", "cpu", "--threads", 1),
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    assert json.loads(judged.stdout)["map50"] > 0.5
    unseen = [drawn(seed) for seed in range(9000, 9030)]
    mine = detect.load(str(out / "shelves.safetensors"), device="cpu")
    right = sum(found[0]["label"] in {name for _, name in truths} for found, (_, truths) in zip(mine.predict([one for one, _ in unseen]), unseen, strict=True) if found)
    assert right >= 20


class Ended(Exception):
    """Somebody ends a training."""


@pytest.mark.slow
def test_a_training_that_was_ended_goes_on_as_if_it_had_not_been(coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "_SAVE_S", 0.0)
    monkeypatch.setattr(trainer, "_SAY_S", 0.0)
    photos = dataset_readers.read(coco, "train").split()[1]
    plan = trainer.Plan(size=128, classify_epochs=1, classify_batch=8, detect_epochs=0.5, detect_batch=4, threads=1)

    def end_at(stage: str, step: int) -> Say:
        def say(said: str) -> None:
            if said.startswith(stage) and f"step {step}/" in said:
                raise Ended

        return say

    for folder in ("whole", "ended"):
        (tmp_path / folder).mkdir()
    for stage, step in (("classify", 3), ("detect", 2), ("detect", 4)):
        with pytest.raises(Ended):
            trainer.train(photos, plan, tmp_path / "ended", end_at(stage, step), {})
    finals = [trainer.train(photos, plan, tmp_path / folder, lambda _: None, {}) for folder in ("whole", "ended")]
    assert finals[0].keys() == finals[1].keys()
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])
    brighter = replace(photos, pictures=photos.pictures + 1)
    for other, settings in ((photos, replace(plan, seed=2)), (brighter, plan)):
        with pytest.raises(OtherTraining, match="other data or other settings"):
            trainer.train(other, settings, tmp_path / "ended", lambda _: None, {})
    with monkeypatch.context() as changed:
        changed.setattr(trainer, "_RECIPE", trainer._RECIPE + 1)
        with pytest.raises(OtherTraining, match="older version"):
            trainer.train(photos, plan, tmp_path / "ended", lambda _: None, {})
    (tmp_path / "ended" / "checkpoint.pt").write_bytes(b"PK\3\4 half of it")
    with pytest.raises(OtherTraining, match="damaged"):
        trainer.train(photos, plan, tmp_path / "ended", lambda _: None, {})


def test_a_training_begins_from_another_models_weights_as_far_as_they_name_the_same_classes(coco: Path, tmp_path: Path) -> None:
    bundled, card = model_registry.load(model_registry.BUNDLED)
    said, whole = pretrained_weights.read(model_registry.BUNDLED, list(card.labels[1:]))
    assert said == f"grocery {card.version}, sha256 {card.weights_sha256}"
    assert whole.keys() == bundled.state_dict().keys()
    _, other = pretrained_weights.read(model_registry.BUNDLED, list(NAMES))
    assert {".".join(name.split(".")[:2]) for name in whole.keys() - other.keys()} == {"head.classification_head"}
    photos = dataset_readers.read(coco, "train").split()[1]
    plan = trainer.Plan(size=128, classify_epochs=0, detect_epochs=0.01, detect_batch=2, threads=1)  # a single step, of a small rate
    trained = trainer.train(photos, plan, tmp_path, lambda _: None, other)
    assert all(torch.allclose(trained[name], one, atol=1e-3) for name, one in other.items() if name.endswith("weight"))
    assert trained["head.classification_head.module_list.0.weight"].shape[0] == (len(NAMES) + 1) * 4


@pytest.mark.slow
def test_the_card_says_whose_weights_a_training_began_from(coco: Path, tmp_path: Path) -> None:
    main.run_train([str(coco), "--out", str(tmp_path), "--start", "grocery", "--size", "128", "--detect-epochs", "0.05", "--threads", "1", "--device", "cpu"])
    card = json.loads((tmp_path / "mine.json").read_text())
    assert card["start"].startswith("grocery 1.")
    assert (card["classify_epochs"], card["labels"]) == (0, list(NAMES))
    assert detect.load(str(tmp_path / "mine.safetensors"), device="cpu").predict([drawn(1)[0]])


def test_only_the_same_kind_of_network_can_be_begun_from(tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_text(json.dumps({"name": "theirs", "version": "1", "architecture": "ssdlite320_mobilenet_v3_large", "labels": ["a"]}))
    torch.save(model_registry.build_model("ssdlite320_mobilenet_v3_large", 1, 320).state_dict(), tmp_path / "theirs.pt")
    with pytest.raises(model_registry.ModelUnusable, match="another kind of network"):
        pretrained_weights.read(str(tmp_path / "theirs.pt"), ["a"])


def test_weights_of_before_the_second_blocks_give_what_they_gave() -> None:
    torch.manual_seed(1)
    whole = network.build_detector(2, 128).eval()
    before = {name: one for name, one in whole.state_dict().items() if ".2.second." not in name and ".2.first." not in name}
    assert len(before) < len(whole.state_dict())
    filled = network.build_detector(2, 128).eval()
    network.load_weights(filled, before)
    picture = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        assert all(torch.equal(one, filled.backbone(picture)[name]) for name, one in whole.backbone(picture).items())
    with pytest.raises(RuntimeError, match="Missing key"):
        network.load_weights(filled, {name: one for name, one in before.items() if "stages.4" not in name})


def test_the_same_seed_gives_the_same_scenes_and_every_box_is_in_the_picture(coco: Path) -> None:
    photos = dataset_readers.read(coco, "train")
    for number in range(60):
        one, other = (scenes.compose(photos, 128, np.random.default_rng([4, number])) for _ in range(2))
        assert (one.picture == other.picture).all()
        assert (one.boxes == other.boxes).all()
        assert one.picture.shape == (128, 128, 3)
        assert one.fine is not None
        assert len(one.boxes) == len(one.classes) == len(one.fine) > 0
        assert (one.boxes >= 0).all()
        assert (one.boxes <= 128).all()
        assert (one.boxes[:, 2:] > one.boxes[:, :2]).all()


def test_what_lies_before_a_whole_photo_is_told_apart_from_it() -> None:
    shades = np.array([40, 120, 200])
    photos = Photos(list(NAMES), np.full((3, 64, 64, 3), shades[:, None, None, None], np.uint8), np.arange(3), np.arange(3))
    crowds = []
    for number in range(200):
        scene = scenes.compose(photos, 128, np.random.default_rng([5, number]))
        whole = (scene.boxes == [0, 0, 128, 128]).all(1)
        if whole.any() and len(whole) > 1:
            assert whole.tolist() == [True] + [False] * (len(whole) - 1)
            assert len(whole) <= 3
            crowds.append(scene)
    assert 200 * 0.45 * 0.3 * 0.5 < len(crowds) < 200 * 0.45 * 0.3 * 1.5


def test_a_small_crop_of_a_large_photo_does_not_alias() -> None:
    rng = np.random.default_rng(6)
    grain = rng.integers(0, 256, (352, 352, 3)).astype(np.uint8)
    for size in (44, 88, 160):
        spread = augment.crop(grain, size, rng, least=0.95).std() / grain.std()
        assert spread < 1.5 * size / 352  # as of means of (352 / size)^2 pixels


def test_a_class_is_drawn_as_often_as_the_root_of_its_photos() -> None:
    coarse = np.array([0] * 64 + [1] * 4)
    photos = Photos(["many", "few"], np.zeros((68, 1, 1, 3), np.uint8), coarse, coarse)
    rng = np.random.default_rng(1)
    members = np.array([photos.draw(rng) for _ in range(5000)])
    assert (coarse[members] == 1).mean() == pytest.approx(2 / (8 + 2), abs=0.02)
    assert set(members) == set(range(68))


def test_the_detector_learns_from_small_scenes_first_and_sees_each_as_large_as_it_is(coco: Path) -> None:
    task = trainer._detect(dataset_readers.read(coco, "train"), trainer.Plan(size=160))
    model = fine_head.learner(network.build_detector(len(NAMES), 160), len(NAMES), 1.0).train()
    seen: list[tuple[int, ...]] = []
    model.backbone.register_forward_pre_hook(lambda _module, given: seen.append(given[0].shape))
    for done in (0.0, 0.6, 0.7):
        rows = [task.one(np.random.default_rng([1, number]), done) for number in range(2)]
        with torch.no_grad():
            assert task.losses(model, rows).keys() == {"bbox_regression", "classification", "fine"}
    assert seen == [(2, 3, 128, 128), (2, 3, 128, 128), (2, 3, 160, 160)]


def test_a_cutout_of_a_kind_that_no_photo_shows_has_no_fine_class(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(imaging.encode_jpeg(drawn(1)[0]))
    (tmp_path / "train.txt").write_text("photo.jpg, 0, 0\n")
    (tmp_path / "classes.csv").write_text("fine,id,coarse,id,iconic\nRed,0,Apple,0,photo.jpg\nGreen,7,Apple,0,photo.jpg\n")
    photos = dataset_readers.read(tmp_path, "train")
    assert [(coarse, fine) for coarse, fine, _, _ in photos.cutouts] == [(0, 0), (0, UNKNOWN)]


def test_the_learners_second_head_asks_for_known_fine_classes_and_is_left_behind() -> None:
    torch.manual_seed(1)
    plain = network.build_detector(2, 128).state_dict()
    learner = fine_head.learner(network.build_detector(2, 128), 5, 0.5).train()
    assert fine_head.without(learner.state_dict()).keys() == plain.keys()

    def loss(*fine: int) -> float:
        boxes = torch.tensor([[0.0, 0, 60, 60], [50, 50, 128, 128]])[: len(fine)]
        target = {"boxes": boxes, "labels": torch.ones(len(fine), dtype=torch.int64), "fine": torch.tensor(fine)}
        with torch.no_grad():
            return float(learner([torch.zeros(3, 128, 128), torch.ones(3, 128, 128)], [target] * 2)["fine"])

    assert loss(UNKNOWN) == 0
    assert loss(3) == pytest.approx(0.5 * np.log(5), rel=0.5)  # it knows nothing yet
    assert loss(3, UNKNOWN) == pytest.approx(loss(3), rel=0.1)


def test_the_examination_does_not_change() -> None:
    """Whoever changes it changes what every figure in docs/models.md means."""
    photos = Photos(list(NAMES), np.full((8, 256, 256, 3), 90, np.uint8), np.arange(8) % 3, np.zeros(8, np.int64))
    asked = [eval_scenes.scene(photos, evaluate.SCENE_SEED + number) for number in range(40)]
    text = json.dumps([(one.boxes.tolist(), one.classes.tolist()) for one in asked])
    assert hashlib.sha256(text.encode()).hexdigest() == "5d835e6c18bcff03914a7e7890e360b712768d00cd0870957fca7a066669906b"
    shades = [round(float(one.picture.mean())) for one in asked[:5]]
    assert shades == [64, 149, 77, 138, 121]


def test_coco_boxes_are_read_in_their_own_pixels_and_a_fold_shares_no_picture(coco: Path) -> None:
    photos = dataset_readers.read(coco, "train")
    _, truths = drawn(5)
    assert photos.labels == list(NAMES)
    assert photos.scenes[5].boxes.tolist() == [[x, y, x + wide, y + high] for (x, y, wide, high), _ in truths]
    assert [NAMES[one] for one in photos.scenes[5].classes] == [name for _, name in truths]
    learn, fold = photos.split()
    assert (len(learn.scenes), len(fold.scenes)) == (108, 12)
    for part in (learn, fold):
        assert len(part.pictures) == sum(len(one.boxes) for one in part.scenes) == len(part.origin)
        for crop, number in zip(part.origin, part.coarse, strict=True):
            assert number in part.scenes[crop].classes


def test_a_folder_of_labelled_photos_is_read_and_split_by_bursts(tmp_path: Path) -> None:
    rows = []
    for number in range(24):
        (tmp_path / f"{number}.jpg").write_bytes(imaging.encode_jpeg(drawn(number)[0]))
        rows.append(f"{number}.jpg, {number // 8}, {number // 16}\n")
    (tmp_path / "train.txt").write_text("".join(rows))
    (tmp_path / "classes.csv").write_text("fine,id,coarse,id,iconic\nRed,0,Apple,0,\nGreen,1,Apple,0,\nLong,2,Pear,1,none.jpg\n")
    photos = dataset_readers.read(tmp_path, "train")
    assert photos.labels == ["Apple", "Pear"]
    learn, fold = photos.split()
    assert fold.fine.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(learn.pictures) == 18
    assert (fold.pictures[0] == photos.pictures[6]).all()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "JSONDecodeError"),
        ('{"images": []}', "KeyError: 'categories'"),
        ('{"images": [], "categories": [], "annotations": []}', "no box to learn from"),
        ('{"images": [{"id": 1, "file_name": "none.jpg"}], "categories": [{"id": 1, "name": "a"}], "annotations": []}', "none.jpg"),
        ('{"images": [{"id": 1, "file_name": "bad.jpg"}], "categories": [{"id": 1, "name": "a"}], "annotations": []}', "bad.jpg: The file"),
    ],
)
def test_unusable_data_is_said_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xffnot a picture")
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(dataset_readers.DataUnusable, match=sentence):
        dataset_readers.read(tmp_path / "data.json", "train")


def test_the_tools_say_what_is_wrong_and_end_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, sentence in ((["train", tmp_path / "none", "--out", tmp_path / "o"], "none cannot be used"), (["evaluate", tmp_path, "--model", "x"], "Unknown model 'x'")):
        monkeypatch.setattr(sys, "argv", ["main", *map(str, arguments)])
        assert main.main() == 1
        assert sentence in capsys.readouterr().err


def test_average_precision_is_that_of_the_curve() -> None:
    truth = Scene(np.zeros((8, 8, 3), np.uint8), np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32), np.array([0, 0]))

    def box(x: float) -> list[float]:
        return [x, 0.0, x + 10, 10.0]

    scores = [0.9, 0.8, 0.7, 0.6]
    found = [{"label": "a", "score": score, "box": box(x)} for score, x in zip(scores, (0, 100, 21, 0), strict=True)]
    hits = evaluate.matched(found, truth.boxes, ["a", "a"])
    assert hits == [True, False, True, False]  # the second on a box that is taken is wrong
    told = list(zip(scores, hits, strict=True))
    assert evaluate._average_precision(told, 2) == pytest.approx((1 + 2 / 3) / 2)
    assert evaluate._best_threshold(told, 2) == 0.7
