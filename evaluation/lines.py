"""Lines over a common axis as an SVG, without anything that has to be installed; as a PNG, with resvg (pip install resvg-py)."""

import pathlib
import sys

from chart import LETTER, text

COLOURS = ("#2166ac", "#b2182b", "#1a9850", "#7b3294", "#e08214", "#555555", "#c51b7d")
DASHES = ("", "8 4", "2 3", "10 3 2 3", "5 2", "1 2", "12 5")

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 380, 70, 250, 70, 60
# Of the sample beside a label.
SAMPLE = 60
# What a number below the axis needs.
NUMBER_WIDTH = 26


def ticks(least, most, about=6):
    """Round numbers from least to most."""
    step = (most - least) / about or 1
    magnitude = 10 ** len(str(int(step))) / 10
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if magnitude * factor >= step)
    count = int((most - least) / step + 1e-9)
    return [least + step * place for place in range(count + 1)]


def draw(title, subtitle, x_label, y_label, lines, y_range=(0, 100), notes=None):
    """`lines` is {label: [(x, y), ...]}; the y axis has `y_range`; `notes` is {(x, y): what stands beside that point}. Gives the text
    of the file."""
    xs = [x for points in lines.values() for x, _ in points]
    (x_least, x_most), (y_least, y_most) = (min(xs), max(xs)), y_range

    def at(x, y):
        return (LEFT + WIDTH * (x - x_least) / ((x_most - x_least) or 1),
                TOP + HEIGHT * (1 - (min(max(y, y_least), y_most) - y_least) / (y_most - y_least)))

    parts = [text(LEFT, 26, title, size=17, anchor="start"), text(LEFT, 48, subtitle, size=12, anchor="start")]
    for y in ticks(y_least, y_most, 5):
        _, height = at(x_least, y)
        parts.append(f'<line x1="{LEFT}" y1="{height:.1f}" x2="{LEFT + WIDTH}" y2="{height:.1f}" stroke="#dddddd"/>')
        parts.append(text(LEFT - 8, height + 4, f"{y:g}", size=12, anchor="end"))
    last = float("-inf")
    for x in sorted(set(xs)):
        place, _ = at(x, y_least)
        parts.append(f'<line x1="{place:.1f}" y1="{TOP + HEIGHT}" x2="{place:.1f}" y2="{TOP + HEIGHT + 5}" stroke="black"/>')
        if place - last >= NUMBER_WIDTH:
            parts.append(text(place, TOP + HEIGHT + 20, f"{x:g}", size=12))
            last = place
    parts.append(f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="black"/>')
    parts.append(text(LEFT + WIDTH / 2, TOP + HEIGHT + 46, x_label))
    middle = TOP + HEIGHT / 2
    parts.append(f'<g transform="rotate(-90 20 {middle})">{text(20, middle, y_label)}</g>')
    for place, (label, points) in enumerate(lines.items()):
        colour, dash = COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]
        path = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in points)
        style = f'stroke="{colour}" stroke-width="2.2" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{path}" fill="none" {style}/>')
        for x, y in points:
            parts.append('<circle cx="{:.1f}" cy="{:.1f}" r="3.2" fill="{}"/>'.format(*at(x, y), colour))
        height = TOP + 14 + 24 * place
        left = LEFT + WIDTH + 18
        parts.append(f'<line x1="{left}" y1="{height}" x2="{left + 34}" y2="{height}" {style}/>')
        parts.append(text(left + 42, height + 4, label, size=12, anchor="start"))
    for point, note in (notes or {}).items():
        place, height = at(*point)
        parts.append(text(place + 6, height - 6, note, size=11, anchor="start"))
    width = LEFT + WIDTH + max(RIGHT, SAMPLE + LETTER * max(map(len, lines), default=0))
    height = TOP + HEIGHT + BOTTOM
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            'font-family="DejaVu Sans, sans-serif">\n<rect width="100%" height="100%" fill="white"/>\n'
            + "\n".join(parts) + "\n</svg>\n")


def write(path, svg):
    """The SVG and, where resvg is installed, the PNG beside it. Says what was written."""
    path = pathlib.Path(path)
    path.write_text(svg)
    print(path, flush=True)
    try:
        import resvg_py
    except ImportError:
        print(f"{path.with_suffix('.png')} is not written: pip install resvg-py", file=sys.stderr)
        return
    path.with_suffix(".png").write_bytes(bytes(resvg_py.svg_to_bytes(svg_string=svg)))
    print(path.with_suffix(".png"), flush=True)
