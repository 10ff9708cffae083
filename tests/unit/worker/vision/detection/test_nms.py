"""The last step of an SSD against torchvision's own."""

import pytest
import torch
from torchvision.models.detection.ssd import SSD

from worker.vision.detection import nms
from worker.vision.detection.network import build_detector


@pytest.mark.parametrize("peak", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("most", [3, 200])
def test_it_selects_what_torchvisions_own_loop_selects(peak: float, most: int) -> None:
    model: SSD = build_detector(5, 128).eval()
    model.topk_candidates = most
    torch.manual_seed(int(peak))
    anchors = torch.rand(340, 4) * 64
    anchors[:, 2:] += anchors[:, :2] + 8
    heads = {"cls_logits": torch.randn(3, 340, 6) * (1 + peak), "bbox_regression": torch.randn(3, 340, 4)}
    heads["cls_logits"][1, :, 0] += 100  # nothing is seen in the second
    sizes = [(128, 128)] * 3
    expected = model.postprocess_detections(heads, [anchors] * 3, sizes)
    for found, wanted in zip(nms.postprocess_detections(model, heads, [anchors] * 3, sizes), expected, strict=True):
        assert torch.equal(found["labels"], wanted["labels"])
        assert torch.allclose(found["scores"], wanted["scores"])
        assert torch.allclose(found["boxes"], wanted["boxes"], atol=1e-4)
    assert len(expected[0]["scores"]) > 0
    assert len(expected[1]["scores"]) == 0
