"""DeepDream: change an image step by step so that it excites a layer of the detector's network.

The method is that of Mordvintsev, Olah and Tyka (2015).

Each step is gradient ascent on the mean squared activation of the layer. It runs on several sizes of the image, the
smallest first; each size starts from the changes of the one before. A plain gradient is mostly noise of single pixels
in glaring colours, so it is preconditioned: its frequencies and colours are weighted as they are distributed in natural
images (Olah, Mordvintsev and Schubert 2017).
"""

import copy
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from shared.variants import DREAM_LAYERS
from worker.vision import imaging
from worker.vision.detection import model_registry, runtimes
from worker.vision.detection.model_registry import BUNDLED, ModelUnusable
from worker.vision.imaging import Rgb

_OCTAVES: Final = 4
_OCTAVE_RATIO: Final = 1.4
_STEPS: Final = 10
"""Steps at each size."""
_STEP_SIZE: Final = 0.01
"""Mean change of the image's values (0 to 1) by one step at full strength."""
_JITTER: Final = 16
"""The image is shifted by up to this many pixels before each step, so that the network's grid does not become
visible."""
_SEED: Final = 0
_MIN_SIDE: Final = 64
"""A smaller image is padded to this size in pixels: the deeper layers would have no maps of it."""
_PROBE_SIDE: Final = 320
_FALLOFF: Final = 1.5
"""The gradient is divided by the frequency to this power."""


class Dreamer:
    """DeepDream with the network of a detector. Loads its own copy of the model. Not thread-safe."""

    def __init__(self, source: str = BUNDLED, *, device: str | None = None, threads: int = 1) -> None:
        """Load a model.

        :param source: see ``model_registry.load``.
        :param device: ``cpu`` or ``cuda``; by default a GPU if there is one.
        :param threads: number of threads that torch may use in this process.
        :raises ModelUnusable: see ``model_registry.load``; or the network lacks feature maps of the required sizes, or
            ``cuda`` was requested and there is no usable GPU.
        """
        self._device = runtimes.select_device(device)
        torch.set_num_threads(threads)
        model, self._card = model_registry.load(source)
        parts: Any = model
        # A feature pyramid network upsamples to finer maps again; the part before it is its body.
        body: nn.Module = getattr(parts.backbone, "body", parts.backbone)
        self._body = body.eval().requires_grad_(requires_grad=False)
        self._names = _find_layers(self._body)
        if set(self._names) != set(DREAM_LAYERS):
            raise ModelUnusable(
                f"The network of model {self._card.name} lacks feature maps of the {len(DREAM_LAYERS)} sizes that DeepDream needs. Choose another model."
            )
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (parts.transform.image_mean, parts.transform.image_std))

    @property
    def info(self) -> dict[str, str]:
        """``name``, ``version`` and ``weights_sha256`` of the model; stored with every result."""
        return self._card.info

    def dream(self, rgb: Rgb, layer: int, strength: float) -> Rgb:
        """Return the image after DeepDream, at display size. When a GPU's memory does not suffice, the CPU computes it.

        On a CPU the same image gives the same bytes every time; on a GPU the gradients of some networks differ in their
        last digits.

        :param rgb: ``[H, W, 3]``, uint8; reduced first if its longest side exceeds ``imaging.DISPLAY_SIDE``.
        :param layer: one of ``DREAM_LAYERS``.
        :param strength: from 0, no change, to 1.
        :raises ValueError: ``layer`` or ``strength`` is out of range.
        """
        if layer not in DREAM_LAYERS or not 0 <= strength <= 1:
            raise ValueError(f"layer {layer} or strength {strength} is out of range")
        small = imaging.resize_for_display(rgb)
        try:
            return self._dream(small, layer, strength, self._device)
        except torch.OutOfMemoryError:
            if self._device == "cpu":
                raise
        return self._dream(small, layer, strength, "cpu")

    def _dream(self, rgb: Rgb, layer: int, strength: float, device: str) -> Rgb:
        height, width = rgb.shape[:2]
        self._body.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        image = torch.from_numpy(rgb.astype(np.float32) / 255).to(device).permute(2, 0, 1)[None]
        image = functional.pad(image, (0, max(0, _MIN_SIDE - width), 0, max(0, _MIN_SIDE - height)), mode="replicate")
        colour_weights = _colour_weights(image)
        jitter = np.random.default_rng(_SEED)
        change = torch.zeros_like(image)
        for size in _octave_sizes(*image.shape[-2:]):
            base = _resize(image, size)
            dream = base + _resize(change, size)
            frequency_weights = _frequency_weights(size, layer, device)
            for _ in range(_STEPS):
                shift = tuple(jitter.integers(-_JITTER, _JITTER + 1, 2).tolist())
                gradient = torch.roll(self._gradient(torch.roll(dream, shift, (2, 3)), layer), (-shift[0], -shift[1]), (2, 3))
                gradient = torch.fft.irfft2(torch.fft.rfft2(gradient) * frequency_weights, s=size)
                gradient = torch.einsum("ij,njhw->nihw", colour_weights, gradient)
                step = gradient / gradient.abs().mean().clamp_min(torch.finfo(torch.float32).tiny)
                dream = (dream + strength * _STEP_SIZE * step).clamp(0, 1)
            change = dream - base
        result: Rgb = (dream[0, :, :height, :width].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        return np.ascontiguousarray(result)

    def _gradient(self, image: Tensor, layer: int) -> Tensor:
        """Return the gradient ``[1, 3, H, W]`` of the layer's mean squared activation.

        Elements that are not finite become 0.
        """
        image = image.contiguous(memory_format=torch.channels_last).requires_grad_()
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            maps = self._maps((image - self._mean.to(image.device)) / self._std.to(image.device), layer)
            (gradient,) = torch.autograd.grad(maps.square().mean(), image)
        return gradient.nan_to_num(0, 0, 0)

    def _maps(self, batch: Tensor, layer: int) -> Tensor:
        """Compute the network up to the layer, and return the layer's output."""

        def stop(_module: nn.Module, _inputs: Any, maps: Tensor) -> None:
            raise _LayerReached(maps)

        handle = self._body.get_submodule(self._names[layer]).register_forward_hook(stop)
        try:
            self._body(batch)
        except _LayerReached as reached:
            return reached.maps
        finally:
            handle.remove()
        raise RuntimeError(f"the forward pass did not reach {self._names[layer]}")


class _LayerReached(Exception):
    """Ends the forward pass after the layer: later layers need not be computed."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps


def _find_layers(body: nn.Module) -> dict[int, str]:
    """Find the module of each layer.

    Among the modules whose output has the layer's size it is the last of the outermost ones. So it is the end of a
    whole block in networks that have blocks. A copy on the meta device yields the sizes without any computation.

    :returns: module names by layer; layers without such a module are missing.
    """
    probe = copy.deepcopy(body).to("meta")
    outputs: list[tuple[str, int]] = []

    def record(name: str) -> None:
        def hook(_module: nn.Module, _inputs: Any, maps: Any) -> None:
            if isinstance(maps, Tensor) and maps.ndim == 4:
                outputs.append((name, maps.shape[-1]))

        probe.get_submodule(name).register_forward_hook(hook)

    for name, _ in probe.named_modules():
        record(name)
    probe(torch.zeros(1, 3, _PROBE_SIDE, _PROBE_SIDE, device="meta"))
    found = {}
    for layer in DREAM_LAYERS:
        fitting = [name for name, side in outputs if side == _PROBE_SIDE >> layer]
        if fitting:
            outermost = min(name.count(".") for name in fitting)
            found[layer] = [name for name in fitting if name.count(".") == outermost][-1]
    return found


def _octave_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return the sizes (height, width) to process, the smallest first."""
    scales = [_OCTAVE_RATIO**-octave for octave in range(_OCTAVES)]
    return [(round(height * scale), round(width * scale)) for scale in reversed(scales) if min(height, width) * scale >= _MIN_SIDE]


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    return image if image.shape[-2:] == size else functional.interpolate(image, size, mode="bilinear", antialias=True)


def _frequency_weights(size: tuple[int, int], layer: int, device: str) -> Tensor:
    """Return weights ``[H, W // 2 + 1]`` of frequencies as in natural images.

    Lower frequencies weigh more, down to the layer's receptive field. Weights of still lower frequencies go to 0, so
    that the brightness of whole regions does not change.
    """
    down = torch.fft.fftfreq(size[0], device=device)[:, None].square()
    right = torch.fft.rfftfreq(size[1], device=device)[None].square()
    lowest = 2.0 ** -(layer + 2)
    weights: Tensor = (down + right) / (down + right + lowest**2) ** (1 + _FALLOFF / 2)
    return weights


def _colour_weights(image: Tensor) -> Tensor:
    """Return weights ``[3, 3]`` of directions in colour space.

    They are the covariance of the image's colours plus a small multiple of the identity.
    """
    covariance = torch.cov(image[0].flatten(1))
    return covariance / covariance.trace().clamp_min(1e-6) + 0.05 * torch.eye(3, device=image.device)
