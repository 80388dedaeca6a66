"""The data-set card of prepared targets: what is in the folder, whose it is, and how clean its stems are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..codec.sink import whole_file

#: A leak above this, dB, is one a generator can learn to copy.
LOUD = -15.0


def totals(songs: Mapping[str, Mapping[str, Any]], size: int) -> dict[str, Any]:
    """Counts, hours and statistics of a listing; ``size``: bytes of its shards."""
    records = [row["record"] for row in songs.values()]
    seconds = sum(float(record["seconds"]) for record in records)
    rows = sum(float(record["seconds"]) * _rows(record) for record in records)
    kinds = Counter(str(record["kind"]) for record in records)
    roles: Counter[str] = Counter()
    for record in records:
        for role, share in zip(record["stems"], record["share"], strict=True):
            roles[role] += share * record["seconds"]
    leaks = {
        kind: _spread([r["leak_db"] for r in records if r["kind"] == kind and r["leak_db"] is not None])
        for kind in sorted(kinds)
    }
    return {
        "songs": len(records), "hours": round(seconds / 3600, 4), "stem_hours": round(rows / 3600, 4), "bytes": size,
        "bytes_per_stem_second": round(size / rows, 1) if rows else 0.0, "kinds": dict(sorted(kinds.items())),
        "apart": sum(bool(record.get("apart")) for record in records),
        "single": sum(bool(record["single"]) for record in records),
        "playing_hours": {role: round(value / 3600, 4) for role, value in roles.most_common()},
        "licences": dict(Counter(_licence(row) for row in songs.values()).most_common()),
        "splits": dict(Counter(str(row["labels"].get("split", "none")) for row in songs.values()).most_common()),
        "leak_db": {kind: found for kind, found in leaks.items() if found},
        "noted": sum(bool(record["notes"]) for record in records),
    }  # fmt: skip


def card(folder: Path, header: Mapping[str, Any], songs: Mapping[str, Mapping[str, Any]], size: int) -> dict[str, Any]:
    """Write ``README.md`` beside the shards, if it would change, and return what it says."""
    found = totals(songs, size)
    text = page(header, found, songs.values())
    path = folder / "README.md"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with whole_file(path) as part:
            part.write_text(text, encoding="utf-8")
    return found


def page(header: Mapping[str, Any], found: Mapping[str, Any], songs: Iterable[Mapping[str, Any]]) -> str:
    """The card as Markdown."""
    noted = [(str(row["id"]), note) for row in songs for note in row["record"]["notes"]]
    parts = [
        "# Targets for a generator\n\nMade by `descant prepare`: tokens of mixes and stems, who plays when, melodies, "
        "and what leaks from stem to stem. Read it with `descant.recipes.targets_read.TargetSet`.\n",
        _table(("what", "how much"), [
            ("songs", found["songs"]), ("hours of music", found["hours"]),
            ("hours of rows (mix and stems)", found["stem_hours"]),
            ("bytes", found["bytes"]), ("bytes a row-second", found["bytes_per_stem_second"]),
            *((f"songs with {kind} stems", count) for kind, count in found["kinds"].items()),
            ("songs with separated stems beside the true ones", found["apart"]),
            ("songs that are a single stem", found["single"]),
        ]),
        "## Made with\n\n" + _table(("setting", "value"), [(n, f"`{json.dumps(v)}`") for n, v in header.items()]),
        "## Who plays\n\n" + _table(("stem", "hours"), found["playing_hours"].items()),
        "## Leaks\n\nThe strongest leak between two stems of a song, dB of the stem it is in. Between separated stems "
        f"the figure is an upper bound. Above {LOUD:g} dB a generator can learn to copy instead of to play.\n\n"
        + _table(("stems", "songs", "median", "90 % below", f"above {LOUD:g} dB"), [
            (kind, row["songs"], row["median"], row["p90"], row["loud"]) for kind, row in found["leak_db"].items()
        ]),
        "## Licences\n\nAs the data set states them, song by song.\n\n"
        + _table(("licence", "songs"), found["licences"].items()),
        "## Splits\n\n" + _table(("split", "songs"), found["splits"].items()),
    ]  # fmt: skip
    if noted:
        rows = sorted(noted)[:100]
        parts.append(f"## Notes\n\n{len(noted)} songs; the first {len(rows)}:\n\n" + _table(("song", "note"), rows))
    return "\n".join(parts)


def _rows(record: Mapping[str, Any]) -> int:
    """Rows of tokens: the mix, the stems, and what a separator found beside them."""
    return 1 + len(record["stems"]) + len(record.get("apart", ()))


def _licence(row: Mapping[str, Any]) -> str:
    if row["record"]["kind"] == "rendered":
        return "rendered; " + ("; ".join(row["labels"].get("sources", [])) or "no sources named")
    return str(row["labels"].get("licence") or "not stated")


def _spread(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    ordered = sorted(values)
    return {
        "songs": len(ordered), "median": ordered[len(ordered) // 2], "p90": ordered[int(0.9 * (len(ordered) - 1))],
        "loud": sum(value > LOUD for value in ordered),
    }  # fmt: skip


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    # what people call their songs must not break the table
    cells = [[" ".join(str(cell).split()).replace("|", "\\|")[:200] for cell in row] for row in rows]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in cells)]) + "\n"
