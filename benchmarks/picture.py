"""The figures as bars, in plain SVG."""

from collections.abc import Mapping
from html import escape

WIDTH, ROW, LEFT, TOP, RIGHT = 780, 30, 290, 46, 190
GOOD, SHORT = "#2a9d6f", "#d08c4a"


def bars(figures: Mapping[str, list[float]], goals: Mapping[str, tuple[str, str, float]]) -> str:
    """One bar a figure, by how well its goal is met: the line is the goal, longer is better."""
    scale = (WIDTH - LEFT - RIGHT) / 2.0
    height = TOP + ROW * len(figures) + 14
    line = LEFT + scale
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif" font-size="12.5">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        '<text x="10" y="20" font-weight="bold">Against the tuned hand-written Flask + Celery'
        " + psycopg, in the same run</text>",
        f'<text x="{line:.0f}" y="36" fill="#666" text-anchor="middle">goal</text>',
        f'<line x1="{line:.0f}" y1="{TOP - 6}" x2="{line:.0f}" y2="{height - 8}" stroke="#888"'
        ' stroke-dasharray="4 3"/>',
    ]
    for at, (name, (_, middle, _)) in enumerate(figures.items()):
        unit, sign, goal = goals[name]
        reached = middle / goal if sign == ">=" else goal / max(middle, 1e-9)
        y = TOP + at * ROW
        length = min(reached, 2.0) * scale
        aim = "at least" if sign == ">=" else "at most"
        parts += [
            f'<text x="10" y="{y + 15}">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{y + 3}" width="{length:.1f}" height="16" rx="2"'
            f' fill="{GOOD if reached >= 1 else SHORT}"/>',
            f'<text x="{WIDTH - RIGHT + 8}" y="{y + 15}">{middle:.3g} {escape(unit)}'
            f'<tspan fill="#777"> ({aim} {goal:g})</tspan></text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
