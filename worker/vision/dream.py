"""Deepdream: a picture changed step by step into what excites a layer of the detector's network (Mordvintsev, Olah and Tyka 2015).

Each step goes up the gradient of the layer's mean squared activation. The coarse comes first, at small sizes of the picture, and each
finer size begins from what has grown. A plain gradient is mostly noise of single pixels in glaring colours; so it is weighed as if
frequencies and colours had the shares that they have in pictures (Olah, Mordvintsev and Schubert 2017, "preconditioning").
"""

import copy
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from shared.inspections.recipes import DREAM_LAYERS
from worker.vision import imaging
from worker.vision.detection import model_registry, runtimes
from worker.vision.detection.model_registry import BUNDLED, ModelUnusable
from worker.vision.imaging import Rgb

_OCTAVES: Final = 4
_OCTAVE_RATIO: Final = 1.4
_STEPS: Final = 10
"""Steps at each size."""
_STEP: Final = 0.01
"""How much a step changes the picture's values (0 to 1) on average at full strength."""
_JITTER: Final = 16
"""Pixels by which the picture is moved about before each step, so that the network's own grid does not show."""
_SEED: Final = 0
_LEAST_SIDE: Final = 64
"""A smaller picture is continued to this: the deeper layers would have no maps of it."""
_PROBE_SIDE: Final = 320
_FALLOFF: Final = 1.5
"""Power of the frequency by which the gradient is divided."""


class Dreamer:
    """Dreams with a detector's network, of which it has a copy of its own. Not for several threads at once."""

    def __init__(self, source: str = BUNDLED, *, device: str | None = None, threads: int = 1) -> None:
        """Load a model.

        :param source: see ``model_registry.load``.
        :param device: ``cpu`` or ``cuda``; a GPU where there is one by default.
        :param threads: threads that torch may use in this process.
        :raises ModelUnusable: see ``model_registry.load``; or the network has no such layers, or a GPU is asked for where there is none.
        """
        self._device = runtimes.chosen(device)
        torch.set_num_threads(threads)
        model, self._card = model_registry.load(source)
        parts: Any = model
        # A feature pyramid goes back up to finer maps: what leads to it is its body.
        trunk: nn.Module = getattr(parts.backbone, "body", parts.backbone)
        self._trunk = trunk.eval().requires_grad_(requires_grad=False)
        self._names = _layers(self._trunk)
        if set(self._names) != set(DREAM_LAYERS):
            raise ModelUnusable(f"The network of {self._card.name} has no maps of {len(DREAM_LAYERS)} sizes to dream with.")
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (parts.transform.image_mean, parts.transform.image_std))

    @property
    def info(self) -> dict[str, str]:
        """Name, version and digest of the weights: kept with every result."""
        return self._card.info

    def dream(self, rgb: Rgb, layer: int, strength: float) -> Rgb:
        """Dream about a picture ``[H, W, 3]``, made smaller where its longest side is more than ``imaging.SHOWN_SIDE``.

        On a CPU the same picture gives the same bytes again; on a GPU some networks' gradients differ in their last digits.

        :param layer: one of ``DREAM_LAYERS``.
        :param strength: from 0, the picture itself, to 1.
        :raises ValueError: ``layer`` or ``strength`` is none of these.
        """
        if layer not in DREAM_LAYERS or not 0 <= strength <= 1:
            raise ValueError(f"no layer {layer} or no strength {strength}")
        shown = imaging.shown(rgb)
        try:
            return self._dreamt(shown, layer, strength, self._device)
        except torch.OutOfMemoryError:
            if self._device == "cpu":
                raise
        return self._dreamt(shown, layer, strength, "cpu")

    def _dreamt(self, rgb: Rgb, layer: int, strength: float, device: str) -> Rgb:
        height, width = rgb.shape[:2]
        self._trunk.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        picture = torch.from_numpy(rgb.astype(np.float32) / 255).to(device).permute(2, 0, 1)[None]
        picture = functional.pad(picture, (0, max(0, _LEAST_SIDE - width), 0, max(0, _LEAST_SIDE - height)), mode="replicate")
        colours = _colour_shares(picture)
        jitter = np.random.default_rng(_SEED)
        grown = torch.zeros_like(picture)
        for size in _sizes(*picture.shape[-2:]):
            small = _resized(picture, size)
            dreamt = small + _resized(grown, size)
            shares = _frequency_shares(size, layer, device)
            for _ in range(_STEPS):
                shift = tuple(jitter.integers(-_JITTER, _JITTER + 1, 2).tolist())
                gradient = torch.roll(self._gradient(torch.roll(dreamt, shift, (2, 3)), layer), (-shift[0], -shift[1]), (2, 3))
                gradient = torch.fft.irfft2(torch.fft.rfft2(gradient) * shares, s=size)
                gradient = torch.einsum("ij,njhw->nihw", colours, gradient)
                step = gradient / gradient.abs().mean().clamp_min(torch.finfo(torch.float32).tiny)
                dreamt = (dreamt + strength * _STEP * step).clamp(0, 1)
            grown = dreamt - small
        made: Rgb = (dreamt[0, :, :height, :width].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        return np.ascontiguousarray(made)

    def _gradient(self, picture: Tensor, layer: int) -> Tensor:
        """Give the direction ``[1, 3, H, W]`` in which a picture excites the layer more; 0 where it is no number."""
        picture = picture.contiguous(memory_format=torch.channels_last).requires_grad_()
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            maps = self._maps((picture - self._mean.to(picture.device)) / self._std.to(picture.device), layer)
            (gradient,) = torch.autograd.grad(maps.square().mean(), picture)
        return gradient.nan_to_num(0, 0, 0)

    def _maps(self, batch: Tensor, layer: int) -> Tensor:
        """Compute the network as far as the layer."""

        def stop(_module: nn.Module, _inputs: Any, maps: Tensor) -> None:
            raise _Reached(maps)

        handle = self._trunk.get_submodule(self._names[layer]).register_forward_hook(stop)
        try:
            self._trunk(batch)
        except _Reached as reached:
            return reached.maps
        finally:
            handle.remove()
        raise RuntimeError(f"the network went past {self._names[layer]}")


class _Reached(Exception):
    """The layer's maps are there: what would follow need not be computed."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps


def _layers(trunk: nn.Module) -> dict[int, str]:
    """Find the module of each layer: of those whose maps have its size the outermost, of these the last.

    So it is the end of a whole block where the network has blocks. Nothing is computed: a copy without data tells the sizes.
    """
    probe = copy.deepcopy(trunk).to("meta")
    seen: list[tuple[str, int]] = []

    def see(name: str) -> None:
        def seen_by(_module: nn.Module, _inputs: Any, maps: Any) -> None:
            if isinstance(maps, Tensor) and maps.ndim == 4:
                seen.append((name, maps.shape[-1]))

        probe.get_submodule(name).register_forward_hook(seen_by)

    for name, _ in probe.named_modules():
        see(name)
    probe(torch.zeros(1, 3, _PROBE_SIDE, _PROBE_SIDE, device="meta"))
    found = {}
    for layer in DREAM_LAYERS:
        fitting = [name for name, side in seen if side == _PROBE_SIDE >> layer]
        if fitting:
            outermost = min(name.count(".") for name in fitting)
            found[layer] = [name for name in fitting if name.count(".") == outermost][-1]
    return found


def _sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Give the sizes at which a picture is dreamt about, the smallest first."""
    scales = [_OCTAVE_RATIO**-octave for octave in range(_OCTAVES)]
    return [(round(height * scale), round(width * scale)) for scale in reversed(scales) if min(height, width) * scale >= _LEAST_SIDE]


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    return picture if picture.shape[-2:] == size else functional.interpolate(picture, size, mode="bilinear", antialias=True)


def _frequency_shares(size: tuple[int, int], layer: int, device: str) -> Tensor:
    """Weigh frequencies as pictures have them, the lower the more, down to the size of what the layer sees; ``[H, W // 2 + 1]``.

    What is lower goes to 0: the light of whole regions stays as it is.
    """
    down = torch.fft.fftfreq(size[0], device=device)[:, None].square()
    right = torch.fft.rfftfreq(size[1], device=device)[None].square()
    least = 2.0 ** -(layer + 2)
    shares: Tensor = (down + right) / (down + right + least**2) ** (1 + _FALLOFF / 2)
    return shares


def _colour_shares(picture: Tensor) -> Tensor:
    """Weigh directions in the colour space as the picture has them: the covariance ``[3, 3]`` of its colours, and a little of all."""
    covariance = torch.cov(picture[0].flatten(1))
    return covariance / covariance.trace().clamp_min(1e-6) + 0.05 * torch.eye(3, device=picture.device)
