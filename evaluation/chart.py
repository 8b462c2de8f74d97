"""Groups of bars as an SVG, without anything that has to be installed. Each group has a scale of its own."""

from xml.sax.saxutils import escape

COLOURS = ("#555555", "#b2182b", "#ef8a62", "#fddbc7", "#92c5de", "#2166ac")

BAR, GAP, GROUP_GAP = 46, 6, 60
PLOT_HEIGHT, TOP, LEFT, BOTTOM, LEGEND_LINE = 260, 60, 30, 40, 20


def draw(title, unit, groups, kinds, values):
    """`kinds` is {key: label}, in order; `values` is {group: {key: number}}. Gives the text of the file."""
    group_width = len(kinds) * (BAR + GAP)
    width = LEFT + len(groups) * (group_width + GROUP_GAP)
    base = TOP + PLOT_HEIGHT
    height = base + BOTTOM + LEGEND_LINE * len(kinds)
    parts = [text(LEFT, 24, title, size=16, anchor="start")]
    for index, group in enumerate(groups):
        left = LEFT + index * (group_width + GROUP_GAP)
        most = max(values[group].values()) or 1
        parts.append(f'<line x1="{left}" y1="{base}" x2="{left + group_width}" y2="{base}" stroke="black"/>')
        parts.append(text(left + group_width / 2, base + 22, f"{group} ({unit})"))
        for place, key in enumerate(kinds):
            value = values[group][key]
            tall = PLOT_HEIGHT * value / most
            x = left + place * (BAR + GAP)
            colour = COLOURS[place % len(COLOURS)]
            parts.append(f'<rect x="{x}" y="{base - tall:.1f}" width="{BAR}" height="{tall:.1f}" fill="{colour}" '
                         'stroke="black" stroke-width="0.5"/>')
            parts.append(text(x + BAR / 2, base - tall - 5, f"{value:.2f}", size=11))
    for place, label in enumerate(kinds.values()):
        y = base + BOTTOM + LEGEND_LINE * place
        parts.append(f'<rect x="{LEFT}" y="{y - 10}" width="12" height="12" fill="{COLOURS[place % len(COLOURS)]}" '
                     'stroke="black" stroke-width="0.5"/>')
        parts.append(text(LEFT + 20, y, label, size=12, anchor="start"))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif">\n'
            '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n")


def text(x, y, content, size=13, anchor="middle"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(content)}</text>'
