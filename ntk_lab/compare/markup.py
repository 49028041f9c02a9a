"""Pieces of HTML: tables, and names of causes with their colour."""

from html import escape

from ntk_lab.plot.style import CAUSES


def cause(name: str) -> str:
    """Name of a gap behind a dot of its colour."""
    colour = CAUSES.get(name)
    return f'<i class="dot" style="background:{colour}"></i>{escape(name)}'


def row(cells: list[str]) -> str:
    """Cells of plain text."""
    return "".join(f"<td>{escape(cell.replace('+-', '±'))}</td>" for cell in cells)


def table(heads: list[str], rows: list[str]) -> str:
    """Heads are markup already; each row is its cells."""
    cells = "".join(f"<th scope=col>{h}</th>" for h in heads)
    head = f"<thead><tr>{cells}</tr></thead>" if heads else ""
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'
