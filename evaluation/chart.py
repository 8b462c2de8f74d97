"""Groups of bars as an SVG, without anything that has to be installed. Each group has a scale of its own, or all have an axis."""

import math
from xml.sax.saxutils import escape

COLOURS = ("#555555", "#b2182b", "#ef8a62", "#fddbc7", "#92c5de", "#2166ac", "#4d9221", "#c51b7d")

BAR, GAP, GROUP_GAP = 46, 6, 60
PLOT_HEIGHT, TOP, LEFT, BOTTOM, LEGEND_LINE = 260, 70, 46, 40, 20
AXIS_GAP = 8
# Between the rows: labels below one, numbers above the bars of the other.
ROW_GAP = 70
# The width of a letter, on average; of one of the title.
LETTER, TITLE_LETTER = 7.5, 9.2


def draw(title, unit, groups, kinds, values, axis=None, per_row=None):
    """`kinds` is {key: label}, in order; `values` is {group: {key: number}}, from which what was not measured is absent; with the label of
    an `axis` all groups have that one; `per_row` groups stand beside each other, default all. Gives the text of the file."""
    per_row = per_row or len(groups)
    rows = [groups[first:first + per_row] for first in range(0, len(groups), per_row)]
    group_width = max(len(kinds) * (BAR + GAP), LETTER * max(len(group) + len(unit) + 3 for group in groups) - GROUP_GAP // 2)
    width = max(LEFT + per_row * (group_width + GROUP_GAP), TITLE_LETTER * len(title) + 2 * LEFT,
                LETTER * max(map(len, kinds.values())) + 2 * LEFT + 20)
    last_base = TOP + PLOT_HEIGHT + (len(rows) - 1) * (PLOT_HEIGHT + ROW_GAP)
    height = last_base + BOTTOM + LEGEND_LINE * len(kinds)
    parts = [text(LEFT, 24, title, size=16, anchor="start")]
    if not axis and len(groups) > 1:
        parts.append(text(LEFT, 42, "each group has a scale of its own", size=11, anchor="start"))
    common = round_number(max((value for group in groups for value in values[group].values()), default=1) or 1) if axis else None
    for number, row in enumerate(rows):
        base = TOP + PLOT_HEIGHT + number * (PLOT_HEIGHT + ROW_GAP)
        if axis:
            parts += scale(base, common, axis)
        for place, group in enumerate(row):
            left = LEFT + AXIS_GAP + place * (group_width + GROUP_GAP)
            parts.append(f'<line x1="{left}" y1="{base}" x2="{left + group_width}" y2="{base}" stroke="black"/>')
            parts.append(text(left + group_width / 2, base + 22, group if axis else f"{group} ({unit})"))
            parts += bars(left, base, kinds, values[group], common or max(values[group].values(), default=1) or 1)
    for place, label in enumerate(kinds.values()):
        y = last_base + BOTTOM + LEGEND_LINE * place
        parts.append(f'<rect x="{LEFT}" y="{y - 10}" width="12" height="12" fill="{COLOURS[place % len(COLOURS)]}" '
                     'stroke="black" stroke-width="0.5"/>')
        parts.append(text(LEFT + 20, y, label, size=12, anchor="start"))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="DejaVu Sans, sans-serif">\n'
            '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n")


def round_number(least):
    """Not less, and a quarter of it can be read."""
    magnitude = 10 ** math.floor(math.log10(least))
    return next(magnitude * factor for factor in (1, 2, 4, 6, 8, 10) if magnitude * factor >= least * (1 - 1e-9))


def scale(base, most, label):
    """An axis to the left of a row, from 0 to `most`."""
    parts = [f'<line x1="{LEFT}" y1="{base - PLOT_HEIGHT}" x2="{LEFT}" y2="{base}" stroke="black"/>']
    for part in (0, 0.25, 0.5, 0.75, 1):
        y = base - PLOT_HEIGHT * part
        parts.append(f'<line x1="{LEFT - 5}" y1="{y}" x2="{LEFT}" y2="{y}" stroke="black"/>')
        parts.append(text(LEFT - 8, y + 4, f"{most * part:.3g}", size=11, anchor="end"))
    return [*parts, text(LEFT, base - PLOT_HEIGHT - 26, label, size=12, anchor="start")]


def bars(left, base, kinds, values, most):
    """Those of a group; `most` is as high as a row."""
    parts = []
    for place, key in enumerate(kinds):
        if key not in values:
            continue
        tall = PLOT_HEIGHT * values[key] / most
        x = left + place * (BAR + GAP)
        parts.append(f'<rect x="{x}" y="{base - tall:.1f}" width="{BAR}" height="{tall:.1f}" fill="{COLOURS[place % len(COLOURS)]}" '
                     'stroke="black" stroke-width="0.5"/>')
        parts.append(text(x + BAR / 2, base - tall - 5, f"{values[key]:.2f}" if values[key] < 1000 else f"{values[key]:.0f}", size=11))
    return parts


def text(x, y, content, size=13, anchor="middle"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(content)}</text>'
