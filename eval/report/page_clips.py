"""The clips of a report: which are best, middling and worst by each metric, to be heard; and the table of them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from . import names
from .page_audio import Sounds
from .page_html import Raw, data_block, duration, join, number, tag, titled
from .results import Report

#: Clips in each band of a metric, cards in all, rows of the table of clips.
BAND, CARDS, TABLE = 10, 150, 2000
#: band -> its title where a direction is better, and where none is
BANDS = {"best": ("Best", "Highest"), "middle": ("Middle", "Middle"), "worst": ("Worst", "Lowest")}


def clip_label(metric: str) -> str:
    """What a metric's figure of one clip is called: a distance of sets has none, its clips have shares of it."""
    share = ", a clip's share" if names.split(metric)[0].startswith("frechet") else ""
    return titled(names.label(metric)) + share


def bands(values: Mapping[str, float], direction: str, most: int = BAND) -> dict[str, tuple[str, ...]]:
    """Clips of a metric as ``best``, ``middle`` and ``worst``, up to ``most`` in each, none in two of them.

    Best comes first, worst comes last in its band; equal figures go by name. Of one clip only the middle is there.
    """
    sign = 1 if direction == "lower" else -1
    order = sorted(values, key=lambda clip: (sign * values[clip], clip))
    size = min(most, max(1, len(order) // 3))
    if len(order) < 3:
        return {"best": tuple(order[:1]) if len(order) == 2 else (), "middle": tuple(order) if len(order) == 1 else (),
                "worst": tuple(order[1:])}  # fmt: skip
    start = max(size, (len(order) - size + 1) // 2)
    stop = min(start + size, len(order) - size)
    return {"best": tuple(order[:size]), "middle": tuple(order[start:stop]), "worst": tuple(order[-size:])}


@dataclass(frozen=True)
class Chosen:
    """The clips to be heard."""

    bands: Mapping[str, Mapping[str, tuple[str, ...]]]
    """metric -> band -> clips."""
    clips: tuple[str, ...]
    """All of them, in order of first appearance."""
    size: int
    """Clips in a band."""


def choose(per_clip: Mapping[str, Mapping[str, float]], directions: Mapping[str, str], most: int = CARDS) -> Chosen:
    """The largest bands, up to ten clips each, with at most ``most`` different clips over all metrics."""
    for size in range(BAND, 0, -1):
        table = {metric: bands(values, directions[metric], size) for metric, values in per_clip.items()}
        clips = tuple(dict.fromkeys(clip for band in table.values() for row in band.values() for clip in row))
        if len(clips) <= most or size == 1:
            break
    return Chosen(table, clips, size) if per_clip else Chosen({}, (), 0)


def heard(report: Report, sounds: Sounds) -> tuple[Raw, Chosen]:
    """The part of the page where clips are heard, and what was chosen for it."""
    per_clip = {row.metric: row.per_clip for row in report.results if row.per_clip}
    directions = {row.metric: row.direction for row in report.results}
    chosen = choose(per_clip, directions)
    if not chosen.clips:
        return tag("p", "No metric gave a figure per clip, so there is nothing to rank.", class_="quiet"), chosen
    cards = {clip: _card(report, clip, sounds) for clip in chosen.clips}
    options = [tag("option", clip_label(metric), value=metric) for metric in chosen.bands]
    choice = tag("label", "Ranked by ", tag("select", *options, id="ranking"), class_="field")
    find = tag("label", "Find ", tag("input", type="search", id="find-card", placeholder="clip or caption"),
               class_="field")  # fmt: skip
    count = f"{chosen.size} best, middle and worst clips of each metric" if chosen.size > 1 else "One clip of each kind"
    intro = tag("p", f"{count}, {len(chosen.clips)} different ones. Click a spectrogram to play from there.",
                class_="quiet")  # fmt: skip
    first = next(iter(chosen.bands))
    homes = {clip: band for band, row in chosen.bands[first].items() for clip in row}
    parts = [*BANDS.items(), ("rest", ("Others", "Others"))]
    # a reference beside each clip needs wider cards
    kind = "cards paired" if any(report.clips.get(clip, {}).get("reference") for clip in chosen.clips) else "cards"
    places = [
        tag("section", tag("h3", ranked, data_ranked=ranked, data_unranked=unranked),
            tag("div", *(cards[clip] for clip in chosen.clips if homes.get(clip, "rest") == band), class_=kind),
            class_="band", data_band=band)
        for band, (ranked, unranked) in parts
    ]  # fmt: skip
    ranks = {metric: {"bands": table, "direction": directions[metric]} for metric, table in chosen.bands.items()}
    return join((intro, tag("div", choice, find, class_="tools"), *places, data_block("ranks", ranks))), chosen


def _card(report: Report, clip: str, sounds: Sounds) -> Raw:
    row = report.clips.get(clip)
    values = [
        tag("li", tag("span", clip_label(item.metric)), tag("b", number(item.per_clip[clip])),
            data_metric=item.metric)
        for item in report.results if clip in item.per_clip
    ]  # fmt: skip
    head = [tag("h4", clip, dir="auto")]
    if row is None:
        body: list[object] = [tag("p", "the report does not say where this clip lies", class_="missing")]
    else:
        head.append(tag("span", duration(row["seconds"]), class_="quiet"))
        body = [tag("p", row["caption"], class_="caption", dir="auto") if row["caption"] else None]
        takes = [_take("generated", row["file"], clip, sounds)]
        if row["reference"]:
            takes.append(_take("reference", row["reference"], clip, sounds))
        body.append(tag("div", *takes, class_="takes"))
        body.append(_conditions(row["conditions"], clip, sounds))
    body.append(tag("ul", *values, class_="values"))
    return tag("article", tag("header", *head), *body, class_="card", data_clip=clip)


def _take(kind: str, file: str, clip: str, sounds: Sounds) -> Raw:
    """A player below the spectrogram of what it plays."""
    player = sounds.player(file, f"{clip}, {kind}")
    picture = sounds.picture(file, f"{clip}, {kind}") if player.startswith("<audio") else None
    shown = tag("div", picture, tag("span", class_="head"), class_="spec") if picture else None
    return tag("figure", tag("figcaption", kind), shown, player, class_="take")


def _conditions(conditions: Mapping[str, str], clip: str, sounds: Sounds) -> Raw | None:
    if not conditions:
        return None
    items: list[Raw] = []
    for name, text in conditions.items():
        said = sounds.player(text, f"{clip}, {name}") if sounds.is_sound(text) else tag("span", text, dir="auto")
        items += [tag("dt", name), tag("dd", said)]
    return tag("dl", *items, class_="conditions")


def table(report: Report, sounds: Sounds) -> Raw:
    """Every clip with every figure, to be sorted and searched."""
    columns = [row for row in report.results if row.per_clip]
    clips = sorted(report.clips, key=str)[:TABLE] if report.clips else []
    heads = [_head("Clip", "text", "none"), _head("Seconds", "number", "none")]
    heads += [_head(clip_label(row.metric), "number", row.direction) for row in columns]
    lines = []
    for clip in clips:
        place = sounds.place(report.clips[clip]["file"])
        source = None if sounds.embed or not place.is_file() else sounds.source(report.clips[clip]["file"])
        button = tag("button", "▶", type="button", class_="play", data_src=source, aria_label=f"play {clip}")
        cells = [tag("th", button if source else None, tag("span", clip, dir="auto"), scope="row", data_value=clip)]
        cells.append(tag("td", number(report.clips[clip]["seconds"], 3), data_value=report.clips[clip]["seconds"]))
        for row in columns:
            value = row.per_clip.get(clip)
            cells.append(tag("td", "" if value is None else number(value),
                             data_value="" if value is None else repr(float(value))))  # fmt: skip
        lines.append(tag("tr", *cells, data_text=f"{clip} {report.clips[clip]['caption'] or ''}".lower()))
    if not lines:
        return tag("p", "The report lists no clips.", class_="quiet")
    left = len(report.clips) - len(clips)
    more = f" The first {len(clips)} are shown; the others are in results.json." if left else ""
    tools = tag(
        "div", tag("label", "Find ", tag("input", type="search", id="find-row", placeholder="clip or caption"),
                   class_="field"),
        tag("output", f"{len(lines)} clips", id="row-count", class_="quiet"), class_="tools",
    )  # fmt: skip
    grid = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", join(lines)), id="clips-table", class_="sortable")
    hint = tag("p", f"Choose a heading to sort by it; again to turn the order round.{more}", class_="quiet")
    return join((hint, tools, tag("div", grid, class_="scroll", tabindex="0", role="region", aria_label="All clips")))


def _head(text: str, kind: str, direction: str) -> Raw:
    arrow = names.ARROWS[direction]
    words = tag("span", arrow, class_="arrow", title=f"{direction} is better") if arrow else None
    return tag("th", tag("button", text, " ", words, type="button"), scope="col", aria_sort="none", data_kind=kind)
