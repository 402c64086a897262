"""The prose of this repository (docstrings, comments, messages, documents) and its functions."""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]

SQL = re.compile(
    r"\s*(?:--.*\n\s*)*(?:SELECT|WITH|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|GRANT|REVOKE|SET|BEGIN|DO|CALL|COPY|LOCK)\b"
)
SQL_COMMENT = re.compile(r"--[ ]*(.*)")


class Text(NamedTuple):
    """A piece of prose, and the line on which it begins."""

    path: str
    line: int
    text: str


class Function(NamedTuple):
    """A function: its name, place, lines of body, arguments, and whether its docstring is complete."""

    path: str
    line: int
    name: str
    body_lines: int
    arguments: int
    is_public: bool
    is_documented: bool


def tracked_files(*patterns: str) -> list[Path]:
    """Return the files of the repository that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return [REPOSITORY / name for name in sorted(set(listed.splitlines())) if (REPOSITORY / name).exists()]


def sources() -> list[Path]:
    """Return the Python files of the program: without its tests, and without the report, which names the markers."""
    return [path for path in tracked_files("*.py") if not is_test(path) and path.name != "prose_report.py"]


def code_prose(paths: list[Path]) -> list[Text]:
    """Return every docstring and every comment; consecutive comment lines are one text."""
    return [text for path in paths for text in (*_docstrings(path), *_comments(path))]


def messages(paths: list[Path]) -> list[Text]:
    """Return every other string of at least three words; of SQL only its comments, and none of a migration.

    The SQL of a migration cannot be reworded: what has run once is never changed. An f-string is one text.
    """
    return [
        text
        for path in paths
        for text in _strings(path)
        if len(text.text.split()) >= 3 and not relative(path).startswith("alembic/versions/")
    ]


def documents() -> list[Text]:
    """Return every Markdown document, paragraph by paragraph, but not the map, which repeats docstrings."""
    found = []
    for path in tracked_files("*.md", ":!docs/map.md"):
        line = 1
        for paragraph in path.read_text().split("\n\n"):
            found.append(Text(relative(path), line, paragraph))
            line += paragraph.count("\n") + 2
    return found


def other_comments() -> list[Text]:
    """Return the comments of shell scripts, Lua and configuration files."""
    paths = tracked_files("scripts/*", ".ci/*", "*.lua", "*.toml", "*.ini", ".gitignore")
    return [
        Text(relative(path), line, comment[2])
        for path in paths
        if path.suffix != ".py"
        for line, text in enumerate(path.read_text().splitlines(), start=1)
        if (comment := re.match(r"\s*(#(?!!)|--)\s*(.+)", text))
    ]


def names_of_tests(paths: list[Path]) -> list[Text]:
    """Return the names of tests as sentences."""
    return [
        Text(function.path, function.line, function.name.replace("_", " "))
        for function in functions(paths)
        if function.name.startswith("test_")
    ]


def functions(paths: list[Path]) -> list[Function]:
    """Return every function and method, nested ones included."""
    found = []
    for path in paths:
        tree = ast.parse(path.read_text())
        parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
        found += [
            _function(path, node, parents)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
    return found


def is_test(path: Path) -> bool:
    """Whether a file belongs to the tests."""
    return path.relative_to(REPOSITORY).parts[0] == "tests"


def relative(path: Path) -> str:
    """Return a file's path inside the repository."""
    return str(path.relative_to(REPOSITORY))


def line_count(path: Path) -> int:
    """Return the number of lines of a file."""
    return len(path.read_text().splitlines())


def _docstring_nodes(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield docstrings, and the strings below constants and fields that document them."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str()) as text):
                yield text


def _docstrings(path: Path) -> list[Text]:
    nodes = _docstring_nodes(ast.parse(path.read_text()))
    return [Text(relative(path), node.lineno, str(node.value)) for node in nodes]


def _strings(path: Path) -> list[Text]:
    tree = ast.parse(path.read_text())
    passed = {id(node) for node in _docstring_nodes(tree)}
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(values=values):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in values)
                passed |= {id(inner) for inner in ast.walk(node)}
            case ast.Constant(value=str(text)) if id(node) not in passed:
                pass
            case _:
                continue
        found.append(Text(relative(path), node.lineno, _without_sql(text)))
    return found


def _without_sql(text: str) -> str:
    return "\n".join(SQL_COMMENT.findall(text)) if SQL.match(text) else text


def _comments(path: Path) -> list[Text]:
    found: list[Text] = []
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type != tokenize.COMMENT:
            continue
        text, line = token.string.lstrip("# "), token.start[0]
        if found and line == last + 1:
            found[-1] = Text(found[-1].path, found[-1].line, f"{found[-1].text}\n{text}")
        else:
            found.append(Text(relative(path), line, text))
        last = line
    return found


def _function(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef, parents: dict[ast.AST, ast.AST]) -> Function:
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    arguments = [name for name in names if name not in ("self", "cls")]
    docstring = ast.get_docstring(node) or ""
    body = node.body[1:] if docstring else node.body
    lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
    returns = ast.unparse(node.returns) if node.returns else ""
    raises = any(isinstance(inner, ast.Raise) and inner.exc is not None for inner in ast.walk(node))
    is_documented = (
        "Args:" in docstring
        and (returns in ("None", "NoReturn") or bool(re.search(r"Returns:|Yields:", docstring)))
        and (not raises or "Raises:" in docstring)
    )
    is_public = _is_public(node, parents[node])
    return Function(relative(path), node.lineno, node.name, lines, len(arguments), is_public, is_documented)


def _is_public(node: ast.FunctionDef | ast.AsyncFunctionDef, holder: ast.AST) -> bool:
    """Whether callers elsewhere read the docstring; that of a command is its help text, and options document it."""
    if any("command" in ast.unparse(decorator) for decorator in node.decorator_list):
        return False
    if isinstance(holder, ast.ClassDef):
        return not holder.name.startswith("_") and (node.name == "__init__" or not node.name.startswith("_"))
    return isinstance(holder, ast.Module) and not node.name.startswith("_")
