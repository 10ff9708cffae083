"""DeepDream: change an image step by step so that it excites a layer of the detector's network.

The method was published by Mordvintsev, Olah and Tyka (2015).

Each step performs gradient ascent on the mean squared activation of the layer. The steps run on several sizes of the
image, from the smallest to the largest, and each size starts with the changes that were made at the previous size. A
plain gradient is mostly noise in which single pixels have glaring colours. So the gradient is preconditioned: its
frequencies and colours are weighted as they are distributed in natural images (Olah, Mordvintsev and Schubert 2017).
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
"""Number of steps at each size."""
_STEP_SIZE: Final = 0.01
"""Mean change that one step at full strength makes to the values of the image, which are from 0 to 1."""
_JITTER: Final = 16
"""The image is shifted by up to this many pixels before each step, so that the grid of the network's strides does not
become visible."""
_SEED: Final = 0
_MIN_SIDE: Final = 64
"""A side of the image that is shorter than this is padded to this length in pixels, because the deeper layers have no
output for smaller images."""
_PROBE_SIDE: Final = 320
_FALLOFF: Final = 1.5
"""Each frequency component of the gradient is divided by its frequency raised to this power."""


class Dreamer:
    """Applies DeepDream with the network of a detector.

    Each instance loads its own copy of the model. An instance is not thread-safe.
    """

    def __init__(self, source: str = BUNDLED, *, device: str | None = None, threads: int = 1) -> None:
        """Load a model.

        :param source: see ``model_registry.load``.
        :param device: ``cpu`` or ``cuda``; by default, a GPU is used if there is one.
        :param threads: number of threads that torch may use in this process.
        :raises ModelUnusable: the model cannot be loaded (see ``model_registry.load``), its network does not have
            feature maps of all required sizes, or ``cuda`` was requested and there is no usable GPU.
        """
        self._device = runtimes.select_device(device)
        torch.set_num_threads(threads)
        model, self._card = model_registry.load(source)
        parts: Any = model
        # In a feature pyramid network, `body` is the part before the maps are upsampled. Only this part is used.
        body: nn.Module = getattr(parts.backbone, "body", parts.backbone)
        self._body = body.eval().requires_grad_(requires_grad=False)
        self._names = _find_layers(self._body)
        if set(self._names) != set(DREAM_LAYERS):
            raise ModelUnusable(
                f"The network of model {self._card.name} does not have feature maps of all {len(DREAM_LAYERS)} sizes that DeepDream needs. Choose another model."
            )
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (parts.transform.image_mean, parts.transform.image_std))

    @property
    def info(self) -> dict[str, str]:
        """The ``name``, ``version`` and ``weights_sha256`` of the model, which are stored with every result."""
        return self._card.info

    def dream(self, rgb: Rgb, layer: int, strength: float) -> Rgb:
        """Apply DeepDream to an image, and return the result at display size.

        If the memory of the GPU is too small, the CPU computes the result. On a CPU, the same input gives the same
        bytes every time. On a GPU, the gradients of some networks differ in their last digits from run to run.

        :param rgb: ``[H, W, 3]``, uint8. The image is reduced first if its longest side exceeds
            ``imaging.DISPLAY_SIDE``.
        :param layer: one of ``DREAM_LAYERS``.
        :param strength: a value from 0 (the image does not change) to 1.
        :raises ValueError: ``layer`` or ``strength`` is out of range.
        """
        if layer not in DREAM_LAYERS or not 0 <= strength <= 1:
            raise ValueError(f"Layer {layer} or strength {strength} is out of range. Use a layer of DREAM_LAYERS and a strength from 0 to 1.")
        small = imaging.resize_for_display(rgb)
        try:
            return self._dream(small, layer, strength, self._device)
        except torch.OutOfMemoryError:
            if self._device == "cpu":
                raise
        return self._dream(small, layer, strength, "cpu")

    def _dream(self, rgb: Rgb, layer: int, strength: float, device: str) -> Rgb:
        height, width = rgb.shape[:2]
        self._body.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's type annotations lack this overload
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
        """Return the gradient ``[1, 3, H, W]`` of the layer's mean squared activation with respect to the image.

        Elements of the gradient that are not finite are replaced with 0.
        """
        image = image.contiguous(memory_format=torch.channels_last).requires_grad_()
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            maps = self._maps((image - self._mean.to(image.device)) / self._std.to(image.device), layer)
            (gradient,) = torch.autograd.grad(maps.square().mean(), image)
        return gradient.nan_to_num(0, 0, 0)

    def _maps(self, batch: Tensor, layer: int) -> Tensor:
        """Run the network up to the given layer, and return the layer's output."""

        def stop(_module: nn.Module, _inputs: Any, maps: Tensor) -> None:
            raise _LayerReached(maps)

        handle = self._body.get_submodule(self._names[layer]).register_forward_hook(stop)
        try:
            self._body(batch)
        except _LayerReached as reached:
            return reached.maps
        finally:
            handle.remove()
        raise RuntimeError(f"The forward pass did not reach the module {self._names[layer]}.")


class _LayerReached(Exception):
    """Raised to end the forward pass after the requested layer, because later layers are not needed."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps


def _find_layers(body: nn.Module) -> dict[int, str]:
    """Choose a module of the network for each layer number in ``DREAM_LAYERS``.

    DeepDream treats the output of this module as the output of the layer. The candidates for a layer are the modules
    whose output has the size of the layer. Of the candidates that are nested least deeply in other modules, the last
    one is chosen. In networks that consist of blocks, this module is the end of a whole block. The sizes are determined
    with a copy of the network on torch's meta device, which computes no values.

    :returns: the module name for each layer; layers for which there is no such module are missing.
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
    """Return the sizes (height, width) at which the image is processed, the smallest first."""
    scales = [_OCTAVE_RATIO**-octave for octave in range(_OCTAVES)]
    return [(round(height * scale), round(width * scale)) for scale in reversed(scales) if min(height, width) * scale >= _MIN_SIDE]


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    return image if image.shape[-2:] == size else functional.interpolate(image, size, mode="bilinear", antialias=True)


def _frequency_weights(size: tuple[int, int], layer: int, device: str) -> Tensor:
    """Return the weight of each frequency in the gradient, ``[H, W // 2 + 1]``.

    The weights follow the distribution of frequencies in natural images. The weight increases as the frequency
    decreases, down to the frequency that corresponds to the layer's receptive field. Below that frequency, the weights
    decrease to 0, so that the brightness of whole regions does not change.
    """
    down = torch.fft.fftfreq(size[0], device=device)[:, None].square()
    right = torch.fft.rfftfreq(size[1], device=device)[None].square()
    lowest = 2.0 ** -(layer + 2)
    weights: Tensor = (down + right) / (down + right + lowest**2) ** (1 + _FALLOFF / 2)
    return weights


def _colour_weights(image: Tensor) -> Tensor:
    """Return the matrix ``[3, 3]`` that weights the colours of the gradient.

    The matrix is the normalized covariance of the image's colours plus a small multiple of the identity.
    """
    covariance = torch.cov(image[0].flatten(1))
    return covariance / covariance.trace().clamp_min(1e-6) + 0.05 * torch.eye(3, device=image.device)
