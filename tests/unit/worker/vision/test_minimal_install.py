"""The vision code runs with torch, torchvision, OpenCV and Pillow alone: a GPU machine may have nothing more."""

import subprocess
import sys

import pytest

from tests.support.paths import ROOT

_MISSING = {
    "openvino", "simplejpeg", "zxingcpp", "safetensors", "psutil", "uuid_utils", "pydantic", "pymongo", "mongoengine", "celery", "orjson",
}  # fmt: skip
_PROCESS_ONE_IMAGE = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {sorted(_MISSING)!r}:
            raise ImportError(name)

sys.meta_path.insert(0, Missing())
from pathlib import Path
from scripts.bench import cuda_rates, vision_cli
from worker.vision import barcode, colors, describe, dream, image_steps, imaging, quality
from worker.vision.augment import augmenter, pixels_torch
from worker.vision.detection import detect
from worker.vision.train import dataset_readers, eval_scenes, evaluate, export, main, trainer

data = Path("samples/shelf-01.jpg").read_bytes()
rgb = imaging.decode(data, max_pixels=50_000_000).rgb
detections = detect.load(device="cpu").predict([rgb])[0]
prepared = image_steps.finish(image_steps.PreparedImage("one", rgb, {{}}), detections, ["rotate", "noise"], "cpu")
augmented = describe.augment_image(data, names=["shear", "noise"], seed=1, max_pixels=50_000_000)
dreamed = dream.Dreamer(device="cpu").dream(imaging.thumbnail(rgb, 64), 3, 0.5)
print(sorted(augmented.files), dreamed.shape, colors.dominant_colors(rgb)[0]["hex"])
print(sorted(prepared.files), sorted({{detection["label"] for detection in detections}}))
"""


@pytest.mark.slow
def test_images_are_processed_with_torch_opencv_and_pillow_alone() -> None:
    process = subprocess.run([sys.executable, "-W", "ignore", "-c", _PROCESS_ONE_IMAGE], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    assert "['boxes', 'noise', 'rotate']" in process.stdout
    assert "Banana" in process.stdout
    assert "['noise', 'original', 'shear'] (48, 64, 3) #" in process.stdout


_LIST_IMPORTS = """
import sys
from worker.vision import barcode, image_steps, imaging
from worker.vision.detection import detect

print(sorted({"openvino", "simplejpeg", "zxingcpp"} & set(sys.modules)))
detect.load(device="cpu")
from worker.vision.augment import pixels_torch
print(sorted({"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)))
import torch._dynamo.utils
from torchvision.ops import roi_align
print(roi_align.__globals__["is_compile_supported"]("cpu") == torch._dynamo.utils.is_compile_supported("cpu"))
"""


@pytest.mark.slow
def test_decoders_are_imported_on_first_use_and_torchs_compiler_only_on_demand() -> None:
    """The import of the compiler took half of a worker's start-up time.

    Torchvision and OpenVINO's check of the trace caused it.
    """
    pytest.importorskip("openvino")
    process = subprocess.run([sys.executable, "-W", "ignore", "-c", _LIST_IMPORTS], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert process.stdout.split() == ["[]", "[]", "True"]
