"""``descant score``: everything that can be said of a folder of clips, in one call.

What is computed depends on what is given. Every metric has its row, with a value or with the reason why it has none.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ... import __version__
from ..embed import audio_files
from ..metric import Result
from . import accompany, distances, inputs, rows, selfcheck, tagged
from .analyse import RECIPE
from .bundle import Bundle, gather, load
from .damage import Codec
from .hear import Clip, Desk, Heard, hear, run
from .inputs import About, Matched
from .judges import Judge, Line, Plan, plan, tagger_of
from .results import RESULTS, SCHEMA, CheckGroup, Plot, Report, SelfCheck, read

_WAYS = {"tempo": "tempo", "key": "key", "melody": "tune"}


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """How to score."""

    recipes: tuple[str, ...] = ("descant-v1",)
    """Protocols of :data:`descant.eval.recipe.PROTOCOLS`."""
    judges: tuple[Judge, ...] = ()
    """Judges beside the two that are always there."""
    jobs: int = 1
    """Processes; figures do not depend on it."""
    seed: int = 0
    strict: bool = False
    """Stop at the first clip, entry or label that cannot be used."""
    cache: str | None = None
    """Folder in which vectors and facts are kept."""
    own_judge: bool = True
    """Whether the package's judge scores; without it a run is faster and says less."""
    codec: Codec | None = None
    """(wav [C, T], rate) -> [C, T], for the self-check's row of it; with several jobs it must be picklable."""
    self_check: bool = True
    save_reference: str | None = None
    """File to which the reference is written, as it was heard."""
    against: str | None = None
    """Folder or results.json of a report to compare with."""
    command: tuple[str, ...] = ()
    progress: Callable[[str, int, int], None] | None = None
    """Called with what is being done, how many clips are done (0 when it begins), and how many there are."""

    def __post_init__(self) -> None:
        if not self.recipes or len(set(self.recipes)) < len(self.recipes):
            raise ValueError(f"recipes are {self.recipes}: name at least one, each once")
        if self.jobs < 1 or not 0 <= self.seed < 1 << 63:
            raise ValueError(f"jobs is {self.jobs}, seed {self.seed}: need at least 1 job and a seed of 0 or more")


def score(
    generated: str | os.PathLike[str],
    reference: str | os.PathLike[str] | None = None,
    recipe: str | Sequence[str] | None = None,
    *,
    prompts: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    stems: str | os.PathLike[str] | None = None,
    settings: ScoreSettings | None = None,
) -> Report:
    """Score a folder of clips; ``Report.save(folder)`` writes it, :func:`write` with its page.

    reference: a folder, or a file of ``save_reference``. recipe: a protocol, or several, instead of those of the
    settings. prompts: captions, labels: tempo, key, genre, instruments and melody, each a table (see :mod:`.inputs`);
    without them, files beside the clips are looked at. stems: the stems that were given, see :mod:`.accompany`. Raises
    ValueError naming what is wrong with what was given.
    """
    chosen = settings or ScoreSettings()
    if recipe is not None:
        chosen = replace(chosen, recipes=(recipe,) if isinstance(recipe, str) else tuple(recipe))
    job = _Job(chosen, Path(generated), None if reference is None else Path(reference))
    return job.report(prompts, labels, stems)


def write(report: Report, out: str | os.PathLike[str], page: bool = True) -> Path:
    """Write a report with its tables and page into a folder: a new one appears whole or not at all.

    In the folder of an earlier report each file is replaced at once, results.json last. Raises ValueError when the
    folder holds something else.
    """
    root = check_target(out)
    root.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{root.name[:60]}.", suffix=".part", dir=root.parent))
    try:
        report.save(part)
        if page:
            from .page import write_page

            write_page(part)
        os.chmod(part, 0o777 & ~_umask())
        if not root.exists():
            os.rename(part, root)
            return root
        files = [path for path in sorted(part.rglob("*")) if path.is_file()]
        if not page:  # an earlier report's page would tell of another one
            (root / "index.html").unlink(missing_ok=True)
        for path in sorted(files, key=lambda item: item.name == RESULTS):
            target = root / path.relative_to(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
        return root
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_target(out: str | os.PathLike[str]) -> Path:
    """The folder, if a report may be written there. Raises ValueError for a file, or a folder of other things."""
    root = Path(os.path.abspath(out))
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root}: is a file; name a folder for the report")
    if root.is_dir() and any(root.iterdir()):
        try:
            read(root)
        except ValueError as error:
            raise ValueError(
                f"{root}: is not empty and holds no report of schema {SCHEMA} ({error}); name a new folder"
            ) from None
    return root


class _Job:
    """One evaluation under way."""

    def __init__(self, settings: ScoreSettings, folder: Path, reference: Path | None) -> None:
        self.settings, self.folder, self.where = settings, folder, reference
        self.files = self._files(folder, "generated")
        self.shipped = load(reference) if reference is not None and reference.is_file() else None
        self.theirs: dict[str, Path] = {}
        if reference is not None and self.shipped is None:
            if reference.suffix == ".safetensors":
                raise ValueError(f"{reference}: no such file; a reference file is written with --save-reference")
            self.theirs = self._files(reference, "reference")
        if settings.save_reference is not None and not self.theirs:
            raise ValueError("there is no reference to save: give a folder with --reference")
        self.plan: Plan = plan(settings.recipes, settings.judges, settings.own_judge)
        self.desk = Desk(self.plan.judges, settings.cache, settings.codec)
        self.notes: list[str] = []

    def report(self, prompts: Any, labels: Any, stems: Any) -> Report:
        """Do it all."""
        captions, about = self._about(prompts, labels)
        table = {} if stems is None else accompany.find(stems, self.files)
        mine, theirs = self._hear(captions, about)
        self._tell("figures", 0, 1)
        results, curves = self._distances(mine, theirs, captions)
        results += self._tags(mine, about)
        results += rows.labels(mine, about, self.files)
        results += accompany.rows(table, self.files, self.settings.seed)
        results += rows.sound(mine, theirs, captions)
        self._tell("figures", 1, 1)
        check = self._check(theirs)
        if self.settings.save_reference is not None and theirs is not None:
            replace(theirs, checks=check.groups).save(self.settings.save_reference)
        report = Report(
            version=__version__, created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            command=self.settings.command, seed=self.settings.seed, generated=mine.side,
            reference=None if theirs is None else theirs.side, recipes=self._recipes(), results=tuple(results),
            self_check=check, curves=curves, clips=self._clips(mine, about, captions, table), notes=tuple(self.notes),
            inputs=self.inputs | ({} if stems is None else {"stems": {"source": str(stems), "clips": len(table)}}),
            heard=mine,
        )  # fmt: skip
        if self.settings.against is None:
            return report
        from .compare import against

        return replace(report, comparison=against(report, mine, theirs, self.settings.against))

    def _files(self, folder: Path, what: str) -> dict[str, Path]:
        files = audio_files(folder)
        if not files:
            raise ValueError(f"{folder}: holds no audio files; the {what} clips are .wav, .flac, .ogg, .opus or .mp3")
        return files

    def _about(self, prompts: Any, labels: Any) -> tuple[dict[str, str], dict[str, About]]:
        """Captions and labels by clip, from tables or from files beside the clips."""
        self.inputs: dict[str, Any] = {}
        given = {"prompts": prompts, "labels": labels}
        found: dict[str, Matched] = {}
        for name, path in given.items():
            if path is not None:
                found[name] = inputs.match(Path(path).name, inputs.read_table(path), self.files)
        if not found:
            beside = inputs.sidecars("files beside the clips", self.files)
            found = {"sidecars": beside} if beside.about else {}
        about: dict[str, About] = {}
        for name, item in found.items():
            if not item.about:
                raise ValueError(
                    f"{given[name]}: none of its {len(item.spare)} entries names one of the {len(self.files)} clips; "
                    f"entries are like {inputs.some(item.spare[:2])}, clips like {inputs.some(list(self.files)[:2])}"
                )
            for note in item.notes():
                if self.settings.strict and name != "sidecars":
                    raise ValueError(note)
                self.notes.append(note)
            self.inputs[name] = item.to_json()
            for clip, entry in item.about.items():
                about[clip] = entry if clip not in about else _merged(about[clip], entry)
        return {clip: item.caption for clip, item in about.items() if item.caption}, about

    def _hear(self, captions: Mapping[str, str], about: Mapping[str, About]) -> tuple[Bundle, Bundle | None]:
        hearings = self.plan.hearings
        tasks = []
        for name, path in self.files.items():
            asked = about.get(name, About())
            groups = [group for field, group in _WAYS.items() if getattr(asked, field) is not None]
            tasks.append(Clip(name, path, hearings, ("basic", "describe", *groups)))
        mine = gather(self.folder.resolve().name, str(self.folder), self._run("generated", tasks), hearings, captions)
        self._require(mine)
        if self.where is None or self.shipped is not None:
            return mine, self.shipped
        tasks = [Clip(name, path, hearings, ("basic",)) for name, path in self.theirs.items()]
        said = inputs.sidecars("files beside the reference", self.theirs).about
        texts = {name: item.caption for name, item in said.items() if item.caption}
        texts |= {name: text for name, text in captions.items() if name in self.theirs and name not in texts}
        theirs = gather(self.where.resolve().name, str(self.where), self._run("reference", tasks), hearings, texts)
        self._require(theirs)
        return mine, theirs

    def _run(self, what: str, tasks: Sequence[Clip]) -> list[Heard]:
        found = []
        self._tell(what, 0, len(tasks))
        for item in run(hear, tasks, self.desk, self.settings.jobs, partial(self._tell, what)):
            if self.settings.strict and item.failures:
                raise ValueError(f"{item.name}: {next(iter(item.failures.values()))} (--strict stops here)")
            found.append(item)
        return found

    def _tell(self, what: str, done: int, count: int) -> None:
        if self.settings.progress is not None:
            self.settings.progress(what, done, count)

    def _require(self, bundle: Bundle) -> None:
        side = bundle.side
        if side.clips == 0:
            name, reason = sorted(side.failures.items())[0]
            raise ValueError(
                f"none of the {len(side.failures)} files of {side.folder} can be used, such as {name}: {reason}"
            )
        if side.failures:
            names = inputs.some(sorted(side.failures))
            self.notes.append(f"{len(side.failures)} clips of {side.name} could not be used by every judge: {names}")

    def _distances(
        self, mine: Bundle, theirs: Bundle | None, captions: Mapping[str, str]
    ) -> tuple[list[Result], dict[str, Plot]]:
        sets = distances.Sets(generated=mine, reference=theirs, captions=captions, seed=self.settings.seed)
        results: list[Result] = []
        curves: dict[str, Plot] = {}
        for line in self.plan.lines:
            found, plots = distances.rows(line, sets, self._text(line))
            results += found
            curves |= plots
        return results, curves

    def _text(self, line: Line) -> Any:
        if line.hearing is None or line.metrics != ("clap",):
            return None
        judge = self.plan.opened[line.hearing.judge]

        def embed(captions: list[str]) -> torch.Tensor:
            with torch.no_grad():
                return torch.as_tensor(judge.embed_text(captions)).float().cpu()

        return embed

    def _tags(self, mine: Bundle, about: Mapping[str, About]) -> list[Result]:
        found: list[Result] = []
        for line in self.plan.lines:
            # other people's protocols know no genre or instruments
            if not line.metrics[0].startswith("kl-") or line.recipe.name != "descant-v1":
                continue
            if line.hearing is None:
                found += tagged.absent(line.suffix, line.recipe.id, str(line.reason))
                continue
            judge = self.plan.opened[line.hearing.judge]
            tags = getattr(tagger_of(judge), "tags", ())
            logits, why, failed = mine.about(line.hearing)
            if not tags or logits is None:
                found += tagged.absent(
                    line.suffix, line.recipe.id, why or f"{line.hearing.judge} does not name its tags"
                )
                continue
            found += [item.with_left_out(failed) for item in tagged.rows(line, judge, tags, logits, about)]
        return found

    def _check(self, theirs: Bundle | None) -> SelfCheck:
        if not self.settings.self_check:
            return SelfCheck(reason="not run: it was left out on request")
        if theirs is None:
            return selfcheck.verdict([])
        if self.shipped is not None:
            return selfcheck.verdict(self.shipped.checks)
        groups: list[CheckGroup] = list(selfcheck.check(
            self.plan.lines, theirs, self.theirs, self.desk, self.settings.jobs, partial(self._tell, "self-check")
        ))  # fmt: skip
        for line in self.plan.lines:
            if line.metrics == ("clap",) and line.hearing is not None and theirs.captions:
                sets = distances.Sets(generated=theirs, reference=None, captions=theirs.captions)
                found, _ = distances.rows(line, sets, self._text(line))
                groups.append(selfcheck.captions(f"{line.suffix}, captions", found[0]))
        return selfcheck.verdict(groups)

    def _recipes(self) -> dict[str, Any]:
        return {RECIPE.id: RECIPE} | {line.recipe.id: line.recipe for line in self.plan.lines}

    def _clips(
        self,
        mine: Bundle,
        about: Mapping[str, About],
        captions: Mapping[str, str],
        table: Mapping[str, accompany.Given],
    ) -> dict[str, dict[str, Any]]:
        found = {}
        for name in sorted(mine.facts):
            conditions = about[name].conditions() if name in about else {}
            if name in table:
                conditions |= {f"stem {stem}": str(path.resolve()) for stem, path in table[name].given.items()}
            other, seconds = self.theirs.get(name), mine.facts[name].get("seconds", torch.zeros(()))
            found[name] = {
                "file": str(self.files[name].resolve()), "seconds": float(seconds), "caption": captions.get(name),
                "conditions": conditions,
                "reference": None if other is None else str(other.resolve()),
            }  # fmt: skip
        return found


def _merged(one: About, two: About) -> About:
    """What the second says, and what only the first does."""
    values = {name: value for name, value in vars(two).items() if value not in (None, ())}
    return replace(one, **values)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
