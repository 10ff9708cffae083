"""Build ICC profiles for colours that a file describes by other means: by code points, or by primaries and a gamma."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_D65: Final = (0.3127, 0.3290)
_BT709: Final = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES: Final = {
    1: _BT709,
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
"""The chromaticities x and y of white, red, green, and blue, by code point (ITU-T H.273, table 2): BT.709, BT.2020, the
P3 of cinemas, and the P3 of displays."""
_GAMMAS: Final = {1: 0.0, 4: 2.2, 5: 2.8, 6: 0.0, 8: 1.0, 13: 0.0, 14: 0.0, 15: 0.0}
"""The exponents of transfer characteristics by code point (ITU-T H.273, table 3); 0 for sRGB. Like most programs, this
module reads those of video as sRGB."""
_SRGB_CURVE: Final = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_D50: Final = (0.9642, 1.0, 0.8249)
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
"""Matrix from XYZ to the cone responses in which a white is adapted to another one (ICC.1:2022, annex E)."""
_GAMMA_RANGE: Final = (0.1, 5.0)
_USUAL_PNG_GAMMA: Final = (0.44, 0.47)
"""Encoders write a gamma within this range for sRGB."""
_TOLERANCE: Final = 0.005


@dataclass(frozen=True, slots=True)
class ColorSpace:
    """The chromaticities x and y of white, red, green, and blue, and the exponent of the curve; 0 means sRGB's curve."""

    chromaticities: tuple[float, ...]
    gamma: float


def from_code_points(primaries: int, transfer: int) -> ColorSpace | None:
    """Return the colour space for two code points of ITU-T H.273; None if they are not supported, as those of HDR."""
    if primaries not in _PRIMARIES or transfer not in _GAMMAS:
        return None
    return ColorSpace(_PRIMARIES[primaries], _GAMMAS[transfer])


def from_png_chunks(chunks: Mapping[bytes, bytes]) -> ColorSpace | None:
    """Return the colour space that the chunks of a PNG describe (PNG, third edition, 4.3).

    :param chunks: the data of the chunks ``cICP``, ``iCCP``, ``sRGB``, ``gAMA``, and ``cHRM``, as far as there are any.
    :returns: None if there is none, if it is sRGB or not supported, or if there is a colour profile instead.
    """
    if len(code_points := chunks.get(b"cICP", b"")) == 4:
        primaries, transfer, matrix, full_range = code_points
        if matrix == 0 and full_range == 1 and (space := from_code_points(primaries, transfer)):
            return space
    if b"iCCP" in chunks or b"sRGB" in chunks or len(chunks.get(b"gAMA", b"")) != 4:
        return None
    exponent = int.from_bytes(chunks[b"gAMA"], "big") / 100_000
    chromaticities = _BT709
    if len(chunks.get(b"cHRM", b"")) == 32:
        chromaticities = tuple(value / 100_000 for value in struct.unpack(">8I", chunks[b"cHRM"]))
    is_usual = _USUAL_PNG_GAMMA[0] <= exponent <= _USUAL_PNG_GAMMA[1]
    if is_usual and np.abs(np.subtract(chromaticities, _BT709)).max() < _TOLERANCE:
        return None
    lowest, highest = _GAMMA_RANGE
    return ColorSpace(chromaticities, 1 / exponent) if exponent and lowest <= 1 / exponent <= highest else None


def build_profile(space: ColorSpace, mode: str) -> bytes:
    """Return an ICC profile of a matrix and curves for pixels of a mode.

    :param mode: ``RGB`` or ``L``.
    :returns: empty bytes if the colour space is not possible.
    """
    curve = _encode_curve(space.gamma)
    tags = {b"wtpt": _encode_xyz(np.array(_D50))}
    if mode == "L":
        return _join_profile(b"GRAY", tags | {b"kTRC": curve})
    matrix = _matrix_to_d50(space.chromaticities)
    if matrix is None:
        return b""
    tags |= {name + b"XYZ": _encode_xyz(column) for name, column in zip((b"r", b"g", b"b"), matrix.T, strict=True)}
    return _join_profile(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def _matrix_to_d50(chromaticities: tuple[float, ...]) -> NDArray[np.float64] | None:
    """Return the matrix from linear RGB to XYZ that is adapted to D50; None if the primaries are not possible."""
    points = np.array(chromaticities, np.float64).reshape(4, 2)
    if not (points[:, 1] > 0.001).all() or not (points.sum(1) < 2).all():
        return None
    xyz = np.column_stack([points[:, 0], points[:, 1], 1 - points.sum(1)]) / points[:, 1:]
    white, primaries = xyz[0], xyz[1:].T
    if abs(np.linalg.det(primaries)) < 0.001:
        return None
    matrix = primaries * np.linalg.solve(primaries, white)
    scale = np.diag((_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white))
    adapted: NDArray[np.float64] = np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD @ matrix
    return adapted if np.isfinite(adapted).all() and np.abs(adapted).max() < 10 else None


def _encode_xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + _encode_fixed(*values)


def _encode_curve(gamma: float) -> bytes:
    kind, parameters = (0, (gamma,)) if gamma else (3, _SRGB_CURVE)
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + _encode_fixed(*parameters)


def _encode_fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _join_profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return a profile of a display (ICC.1:2022, 7)."""
    table, body, begin = b"", b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        table += struct.pack(">4sII", name, begin + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s12s4s", begin + len(body), bytes(4), 0x04400000, b"mntr", space, b"XYZ ", bytes(12), b"acsp")
    return head.ljust(68, b"\0") + _encode_fixed(*_D50) + bytes(48) + struct.pack(">I", len(tags)) + table + body
