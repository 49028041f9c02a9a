"""Rewrite the benchmark tables of README.md from the committed results.

The table of ``benchmarks/results/NAME.json`` goes between the markers ``<!-- bench:NAME -->`` and
``<!-- /bench:NAME -->``. With ``--check`` nothing is written, and the exit code is 1 if a table is
out of date.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
MARKED = re.compile(
    r"(?P<start><!-- bench:(?P<name>[\w.-]+) -->\n).*?(?P<end><!-- /bench:(?P=name) -->)", re.DOTALL
)
MARKER = re.compile(r"<!-- bench:[\w.-]+ -->")


def table(record: dict[str, Any]) -> str:
    """One result file as a Markdown table, with a line on how it was measured."""
    rows = record["rows"]
    rival = record["rival"]
    header = ["case", "ntk_lab"]
    if rival:
        header += [rival, "times faster (quartiles)"]
    header.append("first call")
    extras = list(dict.fromkeys(name for row in rows for name in row["extra"]))
    header += extras
    lines = [_line(header), _line(["---"] + ["---:"] * (len(header) - 1))]
    for row in rows:
        cells = [row["case"], _time(row["ours_ms"])]
        first = _time(_milliseconds(row["ours_first_s"]))
        if rival:
            cells += [_time(row["rival_ms"]), _ratio(row)]
            first += " / " + _time(_milliseconds(row["rival_first_s"]))
        cells += [first, *(_number(row["extra"].get(name)) for name in extras)]
        lines.append(_line(cells))
    return "\n".join(lines) + "\n\n" + _provenance(record) + "\n"


def rewrite(text: str, results: Path = RESULTS) -> str:
    """Return ``text`` with the table of every marked place renewed."""

    def renew(match: re.Match[str]) -> str:
        path = results / f"{match['name']}.json"
        if not path.is_file():
            raise SystemExit(f"README.md wants the benchmark {match['name']!r}: no {path.name}.")
        record = json.loads(path.read_text(encoding="utf-8"))
        return match["start"] + table(record) + match["end"]

    if len(MARKER.findall(text)) != len(MARKED.findall(text)):
        raise SystemExit("README.md: a '<!-- bench:NAME -->' has no '<!-- /bench:NAME -->'.")
    return MARKED.sub(renew, text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Rewrite the benchmark tables of README.md.")
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    check = parser.parse_args(arguments).check
    readme = ROOT / "README.md"
    if not readme.is_file():
        print("There is no README.md to write tables into.")
        return 0
    old = readme.read_text(encoding="utf-8")
    new = rewrite(old)
    if old == new:
        print("The tables of README.md are up to date.")
    elif check:
        print("The tables of README.md are out of date: run `python benchmarks/table.py`.")
        return 1
    else:
        readme.write_text(new, encoding="utf-8")
        print("The tables of README.md were rewritten.")
    return 0


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def _time(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    if milliseconds < 1e3:
        return f"{_number(milliseconds)} ms"
    return f"{_number(milliseconds / 1e3)} s"


def _ratio(row: dict[str, Any]) -> str:
    if row["ratio"] is None:
        return "-"
    low, high = _number(row["ratio_low"]), _number(row["ratio_high"])
    return f"**{_number(row['ratio'])}** ({low} to {high})"


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if 100 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.3g}"


def _provenance(record: dict[str, Any]) -> str:
    machine, versions = record["machine"], record["versions"]
    runs = sorted({row["runs"] for row in record["rows"]})
    precision = "float64 enabled" if record["x64"] else "float32"
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Medians of {' or '.join(map(str, runs))} warm runs in turn, {precision}, on "
        f"{machine['cores']} cores of {machine['cpu']} with {machine['ram_gib']} GiB; {packages}; "
        f"measured {record['measured']}."
    )


if __name__ == "__main__":
    sys.exit(main())
