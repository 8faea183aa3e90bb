"""SVG paths in, masks out: path data (W3C, SVG 1.1, section 8.3) with all its commands, in pixels of the image.

An output is the text of a path, or an object that carries it under `path` or `d`. Curves become lines whose ends lie on
the curve; `fill` colours what they enclose, or resvg where `renderer=resvg` asks for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from refcocom_gpu.adapters.combine import Candidate, score_of
from refcocom_gpu.adapters.fill import fill
from refcocom_gpu.adapters.points import objects_of
from refcocom_gpu.adapters.render import check_renderer, render
from refcocom_gpu.errors import AnswerError, RLEError
from refcocom_gpu.masks.polygons import Points
from refcocom_gpu.predictions.polygon_scale import PolygonScale

STEPS = 64
"""Lines that a curve becomes: a quarter of a circle is then off by 0.00008 of its radius."""

ARGUMENTS = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "S": 4, "Q": 4, "T": 2, "A": 7, "Z": 0}
"""Numbers that one use of a command takes; small letters are relative to the current point."""

LARGEST = 1e9
"""Coordinates beyond this are a mistake, and would lose the precision of a pixel."""

_TOKEN = re.compile(r"[\s,]*(?:([A-Za-z])|([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(\S))")
_FLAG = re.compile(r"[\s,]*([01])")


def masks_of(
    output: Any, height: int, width: int, *, renderer: str | None = None
) -> list[Candidate]:
    """Return the masks of paths in pixels.

    Args:
        output: The text of a path, an object with `path` or `d`, or a list of such objects.
        height: H of the image.
        width: W of the image.
        renderer: `resvg` draws paths with it; None draws them with `fill`.

    Returns:
        A mask for each object; one for a text.

    Raises:
        AnswerError: There is no path, it cannot be parsed, or it lies outside the image.
        UsageError: The renderer is unknown or not installed.

    >>> masks_of("M 0 0 h 2 v 2 h -2 z", 2, 4)[0].mask.astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 0, 0]])
    """
    check_renderer(renderer)
    entries = [{"path": output}] if isinstance(output, str) else objects_of(output)
    candidates = []
    for entry in entries:
        path = entry.get("path", entry.get("d"))
        if not isinstance(path, str):
            raise AnswerError(f"the object has {', '.join(entry) or 'nothing'}, and no path")
        lines = to_lines(path)
        try:
            PolygonScale().see(lines, height, width)
        except RLEError as error:
            raise AnswerError(str(error)) from None
        view = float(width), float(height)
        drawn = render(path, height, width, view=view) if renderer else fill(lines, height, width)
        candidates.append(Candidate(drawn, score_of(entry), lines))
    return candidates


def to_lines(path: str) -> list[Points]:
    """Return the lines of a path, one for each `M`, at least one.

    Args:
        path: Path data.

    Raises:
        AnswerError: It is no path data, or it encloses nothing.

    >>> [line.tolist() for line in to_lines("M1,1 2,1l0,1z")]
    [[[1.0, 1.0], [2.0, 1.0], [2.0, 2.0]]]
    """
    pen = _Pen()
    for command, numbers in _commands(path):
        pen.draw(command, numbers)
    lines = [np.array(line, np.float64) for line in pen.lines if len(line) > 2]
    if not lines:
        raise AnswerError(f"the path encloses nothing: {path[:60]!r}")
    return lines


def _commands(path: str) -> Iterator[tuple[str, list[float]]]:
    """Yield each use of a command with its numbers; a repeated `M` is an `L`."""
    at, command, numbers, is_used = 0, "", list[float](), True
    while match := _next(path, at, command, numbers):
        letter, number, other = match.groups() if match.re is _TOKEN else (None, match[1], None)
        if other or (letter and letter.upper() not in ARGUMENTS):
            raise AnswerError(f"{other or letter!r} is no part of an SVG path: {path[:60]!r}")
        at = match.end()
        if letter:
            if numbers or not is_used:
                raise AnswerError(f"{command} of the path has too few numbers: {path[:60]!r}")
            if not command and letter not in "Mm":
                raise AnswerError(f"a path begins with M, not {letter}")
            command, is_used = letter, letter in "Zz"
            if is_used:
                yield command, []
            continue
        if command in ("", "Z", "z"):
            raise AnswerError(f"the path has a number where a command belongs: {path[:60]!r}")
        numbers.append(float(number))
        if not abs(numbers[-1]) <= LARGEST:
            raise AnswerError(f"the path has the coordinate {number:.40}, beyond any image")
        if len(numbers) == ARGUMENTS[command.upper()]:
            yield command, numbers
            numbers, is_used = [], True
            command = {"M": "L", "m": "l"}.get(command, command)
    if numbers or not is_used:
        raise AnswerError(f"the path is cut off within {command}")


def _next(path: str, at: int, command: str, numbers: list[float]) -> re.Match[str] | None:
    # The two flags of an arc need nothing between them and the next number.
    if command in ("A", "a") and len(numbers) in (3, 4) and (flag := _FLAG.match(path, at)):
        return flag
    return _TOKEN.match(path, at)


class _Pen:
    """Draws commands; points are complex numbers x + iy."""

    def __init__(self) -> None:
        self.lines: list[list[tuple[float, float]]] = []
        self.at = self.start = 0j
        self.is_closed = False
        # The last control point, and the letters after which it is mirrored.
        self.control, self.mirrored_by = 0j, ""

    def draw(self, command: str, numbers: list[float]) -> None:
        """Draw one use of a command."""
        name, is_relative = command.upper(), command.islower()
        origin = self.at if is_relative else 0j
        if self.is_closed and name not in "MZ":
            # After Z, a line begins where the closed one did.
            self.lines.append([(self.at.real, self.at.imag)])
        self.is_closed = name == "Z"
        control, mirrored_by = 0j, ""
        if name == "Z":
            self.at = self.start
        elif name == "M":
            self.at = self.start = origin + complex(*numbers)
            self.lines.append([(self.at.real, self.at.imag)])
        elif name == "H":
            self._to([complex(origin.real + numbers[0], self.at.imag)])
        elif name == "V":
            self._to([complex(self.at.real, origin.imag + numbers[0])])
        elif name == "A":
            end = origin + complex(*numbers[5:])
            self._to(_arc(self.at, end, numbers))
        else:
            points = [
                origin + complex(x, y) for x, y in zip(numbers[::2], numbers[1::2], strict=True)
            ]
            if name in "ST":
                mirrored = 2 * self.at - self.control if name in self.mirrored_by else self.at
                points.insert(0, mirrored)
            if len(points) > 1:
                control, mirrored_by = points[-2], "S" if name in "CS" else "T"
            self._to(_bezier([self.at, *points]))
        self.control, self.mirrored_by = control, mirrored_by

    def _to(self, points: list[complex]) -> None:
        self.lines[-1] += [(p.real, p.imag) for p in points]
        self.at = points[-1]


def _bezier(points: list[complex]) -> list[complex]:
    """Return points on a Bézier curve of any degree, without its first point."""
    degree = len(points) - 1
    if degree == 1:
        return points[1:]
    t = np.arange(1, STEPS + 1) / STEPS
    curve = sum(
        math.comb(degree, k) * (1 - t) ** (degree - k) * t**k * point
        for k, point in enumerate(points)
    )
    return [*np.asarray(curve).tolist()[:-1], points[-1]]


def _arc(start: complex, end: complex, numbers: list[float]) -> list[complex]:
    """Return points on an elliptical arc, without its first point: SVG 1.1, appendix F.6.5 and F.6.6."""
    rx, ry, degrees, large, sweep = abs(numbers[0]), abs(numbers[1]), *numbers[2:5]
    if min(abs(end - start), rx, ry) < 1 / LARGEST:
        return [end]
    turn = complex(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    half = (start - end) / 2 / turn
    # On the unit circle, which the ellipse becomes.
    u = complex(half.real / rx, half.imag / ry)
    if abs(u) > 1:
        rx, ry, u = rx * abs(u), ry * abs(u), u / abs(u)
    distance = math.sqrt(max(0.0, 1 / abs(u) ** 2 - 1))
    centre = u * complex(0, distance if large == sweep else -distance)
    first = math.atan2((u - centre).imag, (u - centre).real)
    last = math.atan2((-u - centre).imag, (-u - centre).real)
    if sweep and last < first:
        last += 2 * math.pi
    elif not sweep and last > first:
        last -= 2 * math.pi
    angles = first + (last - first) * np.arange(1, STEPS + 1) / STEPS
    x = rx * (np.cos(angles) + centre.real)
    y = ry * (np.sin(angles) + centre.imag)
    curve = (x + 1j * y) * turn + (start + end) / 2
    return [*curve.tolist()[:-1], end]
