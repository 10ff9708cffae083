"""Training: labelled data, scenes with their boxes, a model trained on drawings, resuming a training."""

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
from worker.vision.train.checkpoint import CheckpointUnusable
from worker.vision.train.datasets import UNKNOWN, Photos, Scene
from worker.vision.train.progress import LogLine

NAMES = ("Banana", "Aubergine", "Carrots")


def draw_shelf(seed: int, side: int = 160) -> tuple[imaging.Rgb, list[tuple[list[int], str]]]:
    """Draw a shelf with one or two objects on it; returns it with their boxes in COCO's format and their names."""
    rng = np.random.default_rng(seed)
    image = drawings.draw_background(side, side, rng)
    truths = []
    for half in range(int(rng.integers(1, 3))):
        name = NAMES[int(rng.integers(len(NAMES)))]
        piece, mask = drawings.draw_produce(name, int(rng.uniform(60, 76)), rng)
        x, y = half * side // 2, int(rng.integers(0, side - mask.shape[0]))
        drawings.paste(image, piece, mask, x, y)
        truths.append(([x, y, mask.shape[1], mask.shape[0]], name))
    return image, truths


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 120 drawn shelves as user data: JPEGs and a COCO file with its own category ids."""
    folder = tmp_path_factory.mktemp("coco")
    data: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 7 * number + 3, "name": name} for number, name in enumerate(NAMES)]}
    for number in range(120):
        image, truths = draw_shelf(number)
        (folder / f"{number}.jpg").write_bytes(imaging.encode_jpeg(image))
        data["images"].append({"id": number, "file_name": f"{number}.jpg"})
        data["annotations"] += [{"image_id": number, "category_id": 7 * NAMES.index(name) + 3, "bbox": box} for box, name in truths]
    path = folder / "shelves.json"
    path.write_text(json.dumps(data))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "worker.vision.train.main", *map(str, arguments)]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_model_learns_from_coco_resumes_after_a_kill_and_loads_from_its_folder(coco: Path, tmp_path: Path) -> None:
    """Twenty seconds of training on drawings: far below a good model, and far above chance."""
    out = tmp_path / "out"
    train = command(
        "train", coco, "--out", out, "--name", "shelves", "--size", 128, "--classify-epochs", 1, "--detect-epochs", 3, "--threads", 1, "--device", "cpu"
    )
    with subprocess.Popen(train, cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        deadline = time.monotonic() + 600
        while not (out / "checkpoint.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        first.send_signal(signal.SIGKILL)
    assert (out / "checkpoint.pt").exists()
    second = subprocess.run(train, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert second.returncode == 0, second.stderr
    assert "Resuming" in second.stdout
    log = [json.loads(line)["line"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert any("detect" in line and "100%" in line for line in log)
    card = json.loads((out / "shelves.json").read_text())
    assert card["labels"] == list(NAMES)
    assert 0 < card["threshold"] <= 0.3
    assert "shelves 1" in (out / "shelves.md").read_text()
    evaluation = subprocess.run(
        command("evaluate", coco, "--model", out / "shelves.safetensors", "--device", "cpu", "--threads", 1),
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    assert json.loads(evaluation.stdout)["map50"] > 0.5
    unseen = [draw_shelf(seed) for seed in range(9000, 9030)]
    detector = detect.load(str(out / "shelves.safetensors"), device="cpu")
    predictions = detector.predict([image for image, _ in unseen])
    right = sum(found[0]["label"] in {name for _, name in truths} for found, (_, truths) in zip(predictions, unseen, strict=True) if found)
    assert right >= 20


@pytest.mark.parametrize(("instructions", "dtype"), [("avx512_bf16", torch.bfloat16), ("amx_bf16", torch.bfloat16), ("avx2", torch.float32)])
def test_only_a_cpu_with_bfloat16_instructions_computes_in_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instructions: str, dtype: torch.dtype
) -> None:
    """Another CPU takes ten times as long in bfloat16 as in float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True})
    dtypes = []

    def compute_losses(model: torch.nn.Module, _samples: list[Any]) -> dict[str, torch.Tensor]:
        output = model(torch.ones(1, 2, 4, 4))
        dtypes.append(output.dtype)
        return {"loss": output.mean()}

    stage = trainer._Stage("classify", trainer.Plan(threads=1), steps=2, learning_rate=1e-3, checkpoint_path=tmp_path / "checkpoint.pt")
    state = {"stage": "classify", "step": 0, "identity": {}}
    stage.run(torch.nn.Conv2d(2, 1, 3), state, trainer.Task(lambda _rng, _done: None, 1, compute_losses), lambda _line: None)
    assert dtypes == [dtype] * 2


class Interrupted(Exception):
    """Raised to interrupt a training."""


@pytest.mark.slow
def test_an_interrupted_training_gives_the_same_weights_as_an_uninterrupted_one(coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "_CHECKPOINT_INTERVAL_S", 0.0)
    monkeypatch.setattr(trainer, "_LOG_INTERVAL_S", 0.0)
    photos = dataset_readers.read(coco, "train").split()[1]
    plan = trainer.Plan(size=128, classify_epochs=1, classify_batch=8, detect_epochs=0.5, detect_batch=4, threads=1)

    def interrupt_at(stage: str, step: int) -> LogLine:
        def log_line(line: str) -> None:
            if line.startswith(stage) and f"step {step}/" in line:
                raise Interrupted

        return log_line

    for folder in ("whole", "interrupted"):
        (tmp_path / folder).mkdir()
    for stage, step in (("classify", 3), ("detect", 2), ("detect", 4)):
        with pytest.raises(Interrupted):
            trainer.train(photos, plan, tmp_path / "interrupted", interrupt_at(stage, step), {})
    finals = [trainer.train(photos, plan, tmp_path / folder, lambda _: None, {}) for folder in ("whole", "interrupted")]
    assert finals[0].keys() == finals[1].keys()
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])
    brighter = replace(photos, images=photos.images + 1)
    for other, settings in ((photos, replace(plan, seed=2)), (brighter, plan)):
        with pytest.raises(CheckpointUnusable, match="other data or other settings"):
            trainer.train(other, settings, tmp_path / "interrupted", lambda _: None, {})
    with monkeypatch.context() as changed:
        changed.setattr(trainer, "_RECIPE_VERSION", trainer._RECIPE_VERSION + 1)
        with pytest.raises(CheckpointUnusable, match="older version"):
            trainer.train(photos, plan, tmp_path / "interrupted", lambda _: None, {})
    (tmp_path / "interrupted" / "checkpoint.pt").write_bytes(b"PK\3\4 half of it")
    with pytest.raises(CheckpointUnusable, match="damaged"):
        trainer.train(photos, plan, tmp_path / "interrupted", lambda _: None, {})


def test_a_training_starts_from_another_models_weights_without_those_of_classes_that_differ(coco: Path, tmp_path: Path) -> None:
    bundled, card = model_registry.load(model_registry.BUNDLED)
    source, same_classes = pretrained_weights.read(model_registry.BUNDLED, list(card.labels[1:]))
    assert source == f"grocery {card.version}, sha256 {card.weights_sha256}"
    assert same_classes.keys() == bundled.state_dict().keys()
    _, other_classes = pretrained_weights.read(model_registry.BUNDLED, list(NAMES))
    assert {".".join(name.split(".")[:2]) for name in same_classes.keys() - other_classes.keys()} == {"head.classification_head"}
    photos = dataset_readers.read(coco, "train").split()[1]
    plan = trainer.Plan(size=128, classify_epochs=0, detect_epochs=0.01, detect_batch=2, threads=1)  # one step with a small learning rate
    trained = trainer.train(photos, plan, tmp_path, lambda _: None, other_classes)
    assert all(torch.allclose(trained[name], tensor, atol=1e-3) for name, tensor in other_classes.items() if name.endswith("weight"))
    assert trained["head.classification_head.module_list.0.weight"].shape[0] == (len(NAMES) + 1) * 4


@pytest.mark.slow
def test_the_card_names_the_model_whose_weights_a_training_started_from(coco: Path, tmp_path: Path) -> None:
    main.run_train([str(coco), "--out", str(tmp_path), "--start", "grocery", "--size", "128", "--detect-epochs", "0.05", "--threads", "1", "--device", "cpu"])
    card = json.loads((tmp_path / "mine.json").read_text())
    assert card["start"].startswith("grocery 1.")
    assert (card["classify_epochs"], card["labels"]) == (0, list(NAMES))
    assert detect.load(str(tmp_path / "mine.safetensors"), device="cpu").predict([draw_shelf(1)[0]])


def test_a_training_starts_only_from_the_same_kind_of_network(tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_text(json.dumps({"name": "theirs", "version": "1", "architecture": "ssdlite320_mobilenet_v3_large", "labels": ["a"]}))
    torch.save(model_registry.build_model("ssdlite320_mobilenet_v3_large", 1, 320).state_dict(), tmp_path / "theirs.pt")
    with pytest.raises(model_registry.ModelUnusable, match="another kind of network"):
        pretrained_weights.read(str(tmp_path / "theirs.pt"), ["a"])


def test_older_weights_without_the_second_blocks_give_the_same_output_as_before() -> None:
    torch.manual_seed(1)
    whole = network.build_detector(2, 128).eval()
    older = {name: tensor for name, tensor in whole.state_dict().items() if ".2.second." not in name and ".2.first." not in name}
    assert len(older) < len(whole.state_dict())
    filled = network.build_detector(2, 128).eval()
    network.load_weights(filled, older)
    image = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        assert all(torch.equal(features, filled.backbone(image)[name]) for name, features in whole.backbone(image).items())
    with pytest.raises(RuntimeError, match="Missing key"):
        network.load_weights(filled, {name: tensor for name, tensor in older.items() if "stages.4" not in name})

def test_the_same_seed_gives_the_same_scenes_and_every_box_is_in_the_image(coco: Path) -> None:
    photos = dataset_readers.read(coco, "train")
    for number in range(60):
        scene, repeated = (scenes.compose(photos, 128, np.random.default_rng([4, number])) for _ in range(2))
        assert (scene.image == repeated.image).all()
        assert (scene.boxes == repeated.boxes).all()
        assert scene.image.shape == (128, 128, 3)
        assert scene.fine is not None
        assert len(scene.boxes) == len(scene.classes) == len(scene.fine) > 0
        assert (scene.boxes >= 0).all()
        assert (scene.boxes <= 128).all()
        assert (scene.boxes[:, 2:] > scene.boxes[:, :2]).all()


def test_tiles_on_a_whole_photo_have_boxes_of_their_own() -> None:
    shades = np.array([40, 120, 200])
    photos = Photos(list(NAMES), np.full((3, 64, 64, 3), shades[:, None, None, None], np.uint8), np.arange(3), np.arange(3))
    with_tiles = []
    for number in range(200):
        scene = scenes.compose(photos, 128, np.random.default_rng([5, number]))
        whole = (scene.boxes == [0, 0, 128, 128]).all(1)
        if whole.any() and len(whole) > 1:
            assert whole.tolist() == [True] + [False] * (len(whole) - 1)
            assert len(whole) <= 3
            with_tiles.append(scene)
    assert 200 * 0.45 * 0.3 * 0.5 < len(with_tiles) < 200 * 0.45 * 0.3 * 1.5


def test_a_small_crop_of_a_large_photo_does_not_alias() -> None:
    rng = np.random.default_rng(6)
    grain = rng.integers(0, 256, (352, 352, 3)).astype(np.uint8)
    for size in (44, 88, 160):
        spread = augment.random_crop(grain, size, rng, min_area=0.95).std() / grain.std()
        assert spread < 1.5 * size / 352  # a mean of (352 / size)^2 pixels has this standard deviation


def test_a_class_is_sampled_in_proportion_to_the_square_root_of_its_photos() -> None:
    coarse = np.array([0] * 64 + [1] * 4)
    photos = Photos(["many", "few"], np.zeros((68, 1, 1, 3), np.uint8), coarse, coarse)
    rng = np.random.default_rng(1)
    members = np.array([photos.sample(rng) for _ in range(5000)])
    assert (coarse[members] == 1).mean() == pytest.approx(2 / (8 + 2), abs=0.02)
    assert set(members) == set(range(68))


def test_the_detector_trains_on_small_scenes_first_and_takes_each_at_its_own_size(coco: Path) -> None:
    task = trainer._detect(dataset_readers.read(coco, "train"), trainer.Plan(size=160))
    model = fine_head.add_fine_head(network.build_detector(len(NAMES), 160), len(NAMES), 1.0).train()
    shapes: list[tuple[int, ...]] = []
    model.backbone.register_forward_pre_hook(lambda _module, inputs: shapes.append(inputs[0].shape))
    for done in (0.0, 0.6, 0.7):
        samples = [task.make_sample(np.random.default_rng([1, number]), done) for number in range(2)]
        with torch.no_grad():
            assert task.compute_losses(model, samples).keys() == {"bbox_regression", "classification", "fine"}
    assert shapes == [(2, 3, 128, 128), (2, 3, 128, 128), (2, 3, 160, 160)]


def test_a_cutout_of_a_fine_class_that_no_photo_shows_has_no_fine_class(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(imaging.encode_jpeg(draw_shelf(1)[0]))
    (tmp_path / "train.txt").write_text("photo.jpg, 0, 0\n")
    (tmp_path / "classes.csv").write_text("fine,id,coarse,id,iconic\nRed,0,Apple,0,photo.jpg\nGreen,7,Apple,0,photo.jpg\n")
    photos = dataset_readers.read(tmp_path, "train")
    assert [(coarse, fine) for coarse, fine, _, _ in photos.cutouts] == [(0, 0), (0, UNKNOWN)]


def test_the_fine_head_trains_on_known_fine_classes_only_and_is_removed_from_the_weights() -> None:
    torch.manual_seed(1)
    plain = network.build_detector(2, 128).state_dict()
    model = fine_head.add_fine_head(network.build_detector(2, 128), 5, 0.5).train()
    assert fine_head.remove_fine_head(model.state_dict()).keys() == plain.keys()

    def loss(*fine: int) -> float:
        boxes = torch.tensor([[0.0, 0, 60, 60], [50, 50, 128, 128]])[: len(fine)]
        target = {"boxes": boxes, "labels": torch.ones(len(fine), dtype=torch.int64), "fine": torch.tensor(fine)}
        with torch.no_grad():
            return float(model([torch.zeros(3, 128, 128), torch.ones(3, 128, 128)], [target] * 2)["fine"])

    assert loss(UNKNOWN) == 0
    assert loss(3) == pytest.approx(0.5 * np.log(5), rel=0.5)  # untrained: about the loss of a uniform guess
    assert loss(3, UNKNOWN) == pytest.approx(loss(3), rel=0.1)


def test_the_evaluation_scenes_do_not_change() -> None:
    """A change of the scenes changes the meaning of every figure in docs/models.md."""
    photos = Photos(list(NAMES), np.full((8, 256, 256, 3), 90, np.uint8), np.arange(8) % 3, np.zeros(8, np.int64))
    composed = [eval_scenes.compose(photos, evaluate.SCENE_SEED + number) for number in range(40)]
    text = json.dumps([(scene.boxes.tolist(), scene.classes.tolist()) for scene in composed])
    assert hashlib.sha256(text.encode()).hexdigest() == "5d835e6c18bcff03914a7e7890e360b712768d00cd0870957fca7a066669906b"
    means = [round(float(scene.image.mean())) for scene in composed[:5]]
    assert means == [64, 149, 77, 138, 121]


def test_coco_boxes_are_read_in_pixels_and_a_fold_shares_no_image_with_the_rest(coco: Path) -> None:
    photos = dataset_readers.read(coco, "train")
    _, truths = draw_shelf(5)
    assert photos.labels == list(NAMES)
    assert photos.scenes[5].boxes.tolist() == [[x, y, x + width, y + height] for (x, y, width, height), _ in truths]
    assert [NAMES[label] for label in photos.scenes[5].classes] == [name for _, name in truths]
    learn, fold = photos.split()
    assert (len(learn.scenes), len(fold.scenes)) == (108, 12)
    for part in (learn, fold):
        assert len(part.images) == sum(len(scene.boxes) for scene in part.scenes) == len(part.scene_index)
        for index, label in zip(part.scene_index, part.coarse, strict=True):
            assert label in part.scenes[index].classes


def test_a_folder_of_labelled_photos_is_read_and_split_by_bursts(tmp_path: Path) -> None:
    rows = []
    for number in range(24):
        (tmp_path / f"{number}.jpg").write_bytes(imaging.encode_jpeg(draw_shelf(number)[0]))
        rows.append(f"{number}.jpg, {number // 8}, {number // 16}\n")
    (tmp_path / "train.txt").write_text("".join(rows))
    (tmp_path / "classes.csv").write_text("fine,id,coarse,id,iconic\nRed,0,Apple,0,\nGreen,1,Apple,0,\nLong,2,Pear,1,none.jpg\n")
    photos = dataset_readers.read(tmp_path, "train")
    assert photos.labels == ["Apple", "Pear"]
    learn, fold = photos.split()
    assert fold.fine.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(learn.images) == 18
    assert (fold.images[0] == photos.images[6]).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSONDecodeError"),
        ('{"images": []}', "KeyError: 'categories'"),
        ('{"images": [], "categories": [], "annotations": []}', "no box to learn from"),
        ('{"images": [{"id": 1, "file_name": "none.jpg"}], "categories": [{"id": 1, "name": "a"}], "annotations": []}', "none.jpg"),
        ('{"images": [{"id": 1, "file_name": "bad.jpg"}], "categories": [{"id": 1, "name": "a"}], "annotations": []}', "bad.jpg: The file"),
    ],
)
def test_unusable_data_raises_an_error_that_names_the_problem(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xffnot a picture")
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(dataset_readers.DataUnusable, match=message):
        dataset_readers.read(tmp_path / "data.json", "train")


def test_the_commands_print_what_is_wrong_and_exit_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in ((["train", tmp_path / "none", "--out", tmp_path / "o"], "none cannot be used"), (["evaluate", tmp_path, "--model", "x"], "Unknown model 'x'")):
        monkeypatch.setattr(sys, "argv", ["main", *map(str, arguments)])
        assert main.main() == 1
        assert message in capsys.readouterr().err


def test_average_precision_is_the_area_under_the_precision_recall_curve() -> None:
    truth = Scene(np.zeros((8, 8, 3), np.uint8), np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32), np.array([0, 0]))

    def box(x: float) -> list[float]:
        return [x, 0.0, x + 10, 10.0]

    scores = [0.9, 0.8, 0.7, 0.6]
    found = [{"label": "a", "score": score, "box": box(x)} for score, x in zip(scores, (0, 100, 21, 0), strict=True)]
    hits = evaluate.match_detections(found, truth.boxes, ["a", "a"])
    assert hits == [True, False, True, False]  # the last is a second detection of a box that is already matched
    scored_hits = list(zip(scores, hits, strict=True))
    assert evaluate._average_precision(scored_hits, 2) == pytest.approx((1 + 2 / 3) / 2)
    assert evaluate._best_threshold(scored_hits, 2) == 0.7
