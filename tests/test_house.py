"""The rules of the house, read from the source: who imports whom, how long, how documented, how quiet."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("codec", "eval", "gen", "lm", "recipes")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
FRONT = [ROOT / "__init__.py", ROOT / "__main__.py"]
TESTS = sorted((ROOT / "tests").rglob("*.py"))

#: room -> rooms or modules of ours it may import
OURS = {
    "codec": ("codec",),
    "lm": ("lm",),
    "eval": ("eval", "codec.audio", "codec.stft"),
    "gen": ("gen", "codec", "lm"),
    "recipes": ROOMS,
}
#: room -> packages it may import at module level; all of them are base dependencies
BASE = {"numpy", "safetensors", "sentencepiece", "soundfile", "soxr", "torch", "tqdm"}
OUTSIDE = {
    "codec": {"numpy", "safetensors", "soundfile", "soxr", "torch"},
    "lm": {"numpy", "safetensors", "torch"},
    "eval": {"numpy", "safetensors", "torch"},
    "gen": {"numpy", "safetensors", "soundfile", "soxr", "torch"},
    "recipes": BASE,
}
#: room -> further packages it may import inside functions
INSIDE = {
    "codec": {"huggingface_hub", "scipy"},
    "lm": {"huggingface_hub", "llvmlite", "numba", "sentencepiece", "transformers", "xformers"},
    "eval": {"av", "huggingface_hub", "laion_clap", "librosa", "onnxruntime", "scipy", "soundfile", "tqdm",
             "transformers", "visqol"},
    "gen": {"demucs", "huggingface_hub", "python_multipart", "sentencepiece", "starlette", "tqdm", "uvicorn", "yaml"},
    "recipes": {"accelerate", "bs_roformer", "deepspeed", "demucs", "matplotlib", "mido", "museval", "music21",
                "scipy", "tensorboard", "tinysoundfont", "transformers", "visqol"},
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One imported module: ``name`` dotted, ours without ``descant.``; where and how it was written."""

    name: str
    ours: bool
    relative: bool
    inside: bool
    typing: bool
    line: int


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[Import]:
    """Every import statement of a file, those inside functions and type-checking blocks marked."""

    def walk(node: ast.AST, inside: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    ours = alias.name.split(".")[0] == "descant"
                    yield Import(alias.name.removeprefix("descant."), ours, False, inside, typing, child.lineno)
            elif isinstance(child, ast.ImportFrom):
                yield from from_names(child, inside, typing)
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                guard = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                yield from walk(child, inside or function, typing or guard)

    def from_names(node: ast.ImportFrom, inside: bool, typing: bool) -> Iterator[Import]:
        if node.level == 0:
            module = node.module or ""
            ours = module.split(".")[0] == "descant"
            yield Import(module.removeprefix("descant").lstrip("."), ours, False, inside, typing, node.lineno)
            return
        package = list(path.relative_to(ROOT).parent.parts)
        base = package[: len(package) - node.level + 1] + ([node.module] if node.module else [])
        for alias in node.names:
            # `from ..codec import audio` imports codec.audio; `from .audio import read` imports codec.audio
            name = ".".join(base)
            if any((ROOT.joinpath(*base, alias.name)).with_suffix(s).exists() for s in (".py", "")):
                name = ".".join([*base, alias.name])
            yield Import(name, True, True, inside, typing, node.lineno)

    yield from walk(tree_of(path), False, False)


def within(name: str, allowed: tuple[str, ...]) -> bool:
    return name == "" or any(name == one or name.startswith(f"{one}.") for one in allowed)


def places(paths: list[Path]) -> Any:
    return pytest.mark.parametrize("path", paths, ids=[str(path.relative_to(ROOT)) for path in paths])


@places(MODULES)
def test_rooms_import_only_what_they_may(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    wrong = []
    for found in imports(path):
        where = f"{path.relative_to(ROOT)}:{found.line}: {found.name}"
        if found.ours:
            guest = room == "gen" and path.name.startswith("cli") and found.inside
            if not found.relative:
                wrong.append(f"{where}: import it relatively")
            elif not within(found.name, ROOMS if guest else OURS[room]):
                wrong.append(f"{where}: {room} may import only {', '.join(OURS[room])}")
            continue
        top = found.name.split(".")[0]
        if top in sys.stdlib_module_names or found.typing:
            continue
        if top in ROOMS:
            wrong.append(f"{where}: a room by its bare name breaks once installed")
        elif top not in OUTSIDE[room] | (INSIDE[room] if found.inside else set()):
            hint = " at module level" if top in INSIDE[room] else ""
            wrong.append(f"{where}: not for {room}{hint}")
    assert not wrong, "\n".join(wrong)


@places(TESTS)
def test_tests_import_descant_absolutely(path: Path) -> None:
    # a helper beside the test, `from .made import ...`, is no room
    helpers = {name_of(other) for other in TESTS}
    wrong = [f.name for f in imports(path) if f.relative and f.name not in helpers]
    wrong += [f.name for f in imports(path) if not f.ours and f.name.split(".")[0] in ROOMS]
    assert not wrong


@places(MODULES + FRONT)
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, "split it: one idea per file"


def public(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Public functions, classes and methods below a node; what lies inside functions is private."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if child.name.startswith("_"):
                continue
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.If | ast.Try):
            yield from public(child, prefix)


@places(MODULES + FRONT)
def test_public_names_have_docstrings(path: Path) -> None:
    tree = tree_of(path)
    bare = [] if ast.get_docstring(tree) else ["the module itself"]
    bare += [name for name, node in public(tree) if not ast.get_docstring(node)]  # type: ignore[arg-type]
    assert not bare


@places(MODULES)
def test_forward_encode_and_decode_state_a_shape(path: Path) -> None:
    shape = re.compile(r"\[[A-Z0-9.][A-Za-z0-9 .,*+/'_-]*\]")
    bare = [
        name
        for name, node in public(tree_of(path))
        if name.split(".")[-1] in ("forward", "encode", "decode") and not shape.search(ast.get_docstring(node) or "")  # type: ignore[arg-type]
    ]
    assert not bare, "say which tensors go in and out, such as wav [B, C, T] -> codes [B, K, F]"


@places(MODULES + FRONT)
def test_functions_are_of_human_size(path: Path) -> None:
    long = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > 70:
                long.append(f"{node.name} has {lines} lines")
    assert not long


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@places(MODULES + FRONT)
def test_only_the_command_line_prints(path: Path) -> None:
    if path.parent.name == "gen" and path.name.startswith("cli"):
        return
    assert not [node.lineno for name, node in calls(tree_of(path)) if name in ("print", "sys.stdout.write", "pprint")]


@places(MODULES + FRONT)
def test_arguments_are_not_checked_by_assert(path: Path) -> None:
    lines = [node.lineno for node in ast.walk(tree_of(path)) if isinstance(node, ast.Assert)]
    assert not lines, "raise ValueError with what was seen, what is allowed, and what to do"


@places(MODULES + FRONT)
def test_nothing_happens_at_import(path: Path) -> None:
    quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.AnnAssign, ast.Assign)
    loud = []
    for node in tree_of(path).body:
        text = ast.unparse(node)
        if isinstance(node, quiet):
            if isinstance(node, ast.Assign | ast.AnnAssign) and re.search(r"open\(|read_text\(|torch\.load\(", text):
                loud.append(f"{node.lineno}: reads a file")
            continue
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        guard = isinstance(node, ast.If) and ("TYPE_CHECKING" in text or "__name__" in text or "version_info" in text)
        if not (docstring or guard):
            loud.append(f"{node.lineno}: {text.splitlines()[0]}")
    assert not loud


@places(MODULES + FRONT)
def test_nothing_is_unpickled_or_executed(path: Path) -> None:
    tree = tree_of(path)
    bad = [
        f.name for f in imports(path) if f.name.split(".")[0] in ("pickle", "dill", "cloudpickle", "shelve", "marshal")
    ]
    for name, node in calls(tree):
        options = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name == "torch.load" and options.get("weights_only") != "True":
            bad.append(f"{node.lineno}: torch.load without weights_only=True")
        if name in ("np.load", "numpy.load") and options.get("allow_pickle", "False") != "False":
            bad.append(f"{node.lineno}: numpy.load of pickles")
        if name in ("eval", "exec", "os.system"):
            bad.append(f"{node.lineno}: {name}")
        if "shell" in options and options["shell"] != "False":
            bad.append(f"{node.lineno}: a shell")
    assert not bad


def project() -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        from pip._vendor import tomli as tomllib
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return table


def test_the_list_of_packages_is_the_tree() -> None:
    folders = {path.parent.relative_to(ROOT) for path in MODULES} | {Path("gen/weights")}
    tree = {"descant"} | {".".join(["descant", *folder.parts]) for folder in folders}
    assert set(project()["tool"]["setuptools"]["packages"]) == tree
    for folder in folders - {Path("gen/weights")}:
        assert (ROOT / folder / "__init__.py").exists(), f"{folder} needs an __init__.py"


def test_base_dependencies_are_what_the_rooms_import() -> None:
    listed = {re.split(r"[<>=!~ ]", line)[0] for line in project()["project"]["dependencies"]}
    assert listed == BASE


def test_data_files_are_data() -> None:
    files = [path for path in (ROOT / "gen" / "weights").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".model", ".md"}
    assert sum(path.stat().st_size for path in files) < 60_000_000
    for folder in {path.parent for path in files if path.suffix == ".safetensors"}:
        assert (folder / "CARD.md").is_file(), f"{folder.name} has no card that says what it was trained on"


def test_the_constraints_pin_what_is_depended_on() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {line.split("==")[0].lower().replace("_", "-") for line in lines if line and not line.startswith("#")}
    assert all("==" in line for line in lines if line and not line.startswith("#"))
    extras = project()["project"]["optional-dependencies"]
    wanted = [*project()["project"]["dependencies"], *extras["test"], *extras["dev"]]
    names = {re.split(r"[<>=!~ ]", line)[0].lower().replace("_", "-") for line in wanted}
    assert names <= pins


def test_the_changelog_knows_this_version() -> None:
    import descant

    assert f"## {descant.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("code", [
    "import descant",
    "from descant.gen.cli import main; main(['--help'])",
    "from descant.gen.cli import main; main(['generate', '--help'])",
    "from descant.gen.cli import main; main(['generate', 'waltz', '--tempo', '5'])",
    "from descant.gen.cli import main; main(['--version'])",
])  # fmt: skip
def test_help_and_mistakes_wait_for_nothing_heavy(code: str) -> None:
    loaded = python(f"{code}\nimport sys; print('LOADED', *sorted(m for m in sys.modules if '.' not in m))")
    assert not {"torch", "numpy", "soundfile", "soxr", "sentencepiece", "scipy"} & set(
        loaded.split("LOADED")[1].split()
    )


def test_the_front_door_has_what_it_says() -> None:
    import descant

    for name in descant.__all__:
        assert getattr(descant, name) is not None
        assert name in dir(descant)
    with pytest.raises(AttributeError, match="it offers"):
        descant.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_every_module_can_be_imported_with_base_dependencies() -> None:
    names = [f"descant.{name_of(path)}" for path in MODULES]
    block = """
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {'scipy', 'librosa', 'mido', 'tinysoundfont', 'tensorboard', 'accelerate', 'mir_eval'}:
            raise ModuleNotFoundError(name + ' is an extra')
sys.meta_path.insert(0, Refuse())
"""
    python(f"{block}\nfor name in {names!r}: importlib.import_module(name)")
