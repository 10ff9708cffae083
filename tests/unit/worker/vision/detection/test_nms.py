"""The post-processing of an SSD against torchvision's own."""

import pytest
import torch
from torchvision.models.detection.ssd import SSD

from worker.vision.detection import nms
from worker.vision.detection.network import build_detector


@pytest.mark.parametrize("peak", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("limit", [3, 200])
def test_it_selects_the_same_detections_as_torchvision(peak: float, limit: int) -> None:
    model: SSD = build_detector(5, 128).eval()
    model.topk_candidates = limit
    torch.manual_seed(int(peak))
    anchors = torch.rand(340, 4) * 64
    anchors[:, 2:] += anchors[:, :2] + 8
    heads = {"cls_logits": torch.randn(3, 340, 6) * (1 + peak), "bbox_regression": torch.randn(3, 340, 4)}
    heads["cls_logits"][1, :, 0] += 100  # background everywhere in the second image
    sizes = [(128, 128)] * 3
    expected = model.postprocess_detections(heads, [anchors] * 3, sizes)
    for found, wanted in zip(nms.postprocess_detections(model, heads, [anchors] * 3, sizes), expected, strict=True):
        assert torch.equal(found["labels"], wanted["labels"])
        assert torch.allclose(found["scores"], wanted["scores"])
        assert torch.allclose(found["boxes"], wanted["boxes"], atol=1e-4)
    assert len(expected[0]["scores"]) > 0
    assert len(expected[1]["scores"]) == 0
