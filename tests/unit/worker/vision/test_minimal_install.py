"""A GPU machine may have torch, torchvision, OpenCV and Pillow, and nothing more."""

import subprocess
import sys

import pytest

from tests.support.paths import ROOT

_LACKING = {
    "openvino", "simplejpeg", "zxingcpp", "safetensors", "psutil", "uuid_utils", "pydantic", "pymongo", "mongoengine", "celery", "orjson",
}  # fmt: skip
_LOOK = f"""
import sys

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {sorted(_LACKING)!r}:
            raise ImportError(name)

sys.meta_path.insert(0, Lacking())
from pathlib import Path
from scripts.bench import cuda_rates, vision_cli
from worker.vision import barcode, colors, describe, dream, image_steps, imaging, quality
from worker.vision.augment import augmenter, pixels_torch
from worker.vision.detection import detect
from worker.vision.train import dataset_readers, eval_scenes, evaluate, export, main, trainer

data = Path("samples/shelf-01.jpg").read_bytes()
rgb = imaging.decode(data, max_pixels=50_000_000).rgb
found = detect.load(device="cpu").predict([rgb])[0]
prepared = image_steps.finish(image_steps.PreparedImage("one", rgb, {{}}), found, ["rotate", "noise"], "cpu")
shown = describe.augment_image(data, names=["shear", "noise"], seed=1, max_pixels=50_000_000)
dreamt = dream.Dreamer(device="cpu").dream(imaging.thumbnail(rgb, 64), 3, 0.5)
print(sorted(shown.files), dreamt.shape, colors.dominant_colors(rgb)[0]["hex"])
print(sorted(prepared.files), sorted({{one["label"] for one in found}}))
"""


@pytest.mark.slow
def test_pictures_are_looked_at_with_torch_opencv_and_pillow_alone() -> None:
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", _LOOK], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "['boxes', 'noise', 'rotate']" in ended.stdout
    assert "Banana" in ended.stdout
    assert "['noise', 'original', 'shear'] (48, 64, 3) #" in ended.stdout


_LEAN = """
import sys
from worker.vision import barcode, image_steps, imaging
from worker.vision.detection import detect

print(sorted({"openvino", "simplejpeg", "zxingcpp"} & set(sys.modules)))
detect.load(device="cpu")
print(sorted({"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)))
import torch._dynamo.utils
from torchvision.ops import roi_align
print(roi_align.__globals__["is_compile_supported"]("cpu") == torch._dynamo.utils.is_compile_supported("cpu"))
"""


@pytest.mark.slow
def test_decoders_are_imported_on_first_use_and_torchs_compiler_only_for_who_asks() -> None:
    """Half of a worker's start was the compiler's import, once by torchvision and once by a comparison of traces."""
    pytest.importorskip("openvino")
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", _LEAN], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout.split() == ["[]", "[]", "True"]
