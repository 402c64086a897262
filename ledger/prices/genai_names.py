"""Names of models in genai-prices: exact ones and prefixes, by the library's order of models.

The library takes the first model of a provider one of whose clauses matches. The price book takes an exact name before
a prefix, and the longest prefix. A name or prefix is kept only if both find the same model.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from genai_prices.types import (
    ClauseAnd,
    ClauseContains,
    ClauseEndsWith,
    ClauseEquals,
    ClauseOr,
    ClauseRegex,
    ClauseStartsWith,
    MatchLogic,
    ModelInfo,
)

NAMES_MAX, PREFIXES_MAX = 100, 20


class Pattern(NamedTuple):
    """A clause that matches more than one name, and the index of its model."""

    of: int
    clause: MatchLogic


class ModelNames(NamedTuple):
    """The names of a model, as `price.published` has them, and the clauses that they do not cover."""

    names: list[str]
    prefixes: list[str]
    left_out: list[str]


class NameTable:
    """The names of the models of a provider."""

    def __init__(self, models: Sequence[ModelInfo]) -> None:
        self._models = models
        self._first_by_name: dict[str, int] = {}
        self._patterns: list[Pattern] = []
        for index, model in enumerate(models):
            for clause in _clauses(model.match):
                if isinstance(clause, ClauseEquals):
                    self._first_by_name.setdefault(clause.equals.lower(), index)
                else:
                    self._patterns.append(Pattern(index, clause))
        self._names = self._exact_names()

    def owner(self, name: str) -> int | None:
        """Return the index of the model that the library finds by a name."""
        name = name.lower()
        exact = self._first_by_name.get(name, len(self._models))
        for index, clause in self._patterns:
            if index >= exact:
                break
            if clause.is_match(name):
                return index
        return exact if exact < len(self._models) else None

    def names_of(self, index: int) -> ModelNames | None:
        """Return the names of the model at an index; None if its id is that of an earlier model."""
        model = self._models[index]
        if self.owner(model.id) not in (index, None) or model.id in {each.id for each in self._models[:index]}:
            return None
        names = sorted(self._names.get(index, set()) - {model.id})
        prefixes, left_out = [], []
        for clause in _clauses(model.match):
            text = _prefix(clause)
            if text is not None and self._is_free(index, text):
                prefixes.append(text)
            if not isinstance(clause, ClauseEquals) and (text not in prefixes or isinstance(clause, ClauseContains)):
                left_out.append(_described(clause))
        left_out += [f"name {name}" for name in names[NAMES_MAX:]]
        left_out += [f"prefix {prefix}" for prefix in prefixes[PREFIXES_MAX:]]
        return ModelNames(names[:NAMES_MAX], prefixes[:PREFIXES_MAX], left_out)

    def _exact_names(self) -> dict[int, set[str]]:
        """Assign every name that is written in a clause to the model that the library finds by it."""
        names: dict[int, set[str]] = {}
        for model in self._models:
            for clause in _clauses(model.match):
                for name in _literals(clause):
                    owner = self.owner(name)
                    if owner is not None:
                        # The library ignores case, the price book does not.
                        names.setdefault(owner, set()).update((name, name.lower()))
        return names

    def _is_free(self, index: int, prefix: str) -> bool:
        """Whether no earlier model can match a name that begins like this."""
        prefix = prefix.lower()
        earlier = (pattern for pattern in self._patterns if pattern.of < index)
        return not any(_may_match(clause, prefix) for _, clause in earlier)


def _clauses(match: MatchLogic) -> Iterator[MatchLogic]:
    """Yield the alternatives of a match."""
    if isinstance(match, ClauseOr):
        for clause in match.or_:
            yield from _clauses(clause)
    else:
        yield match


def _literals(clause: MatchLogic) -> tuple[str, ...]:
    match clause:
        case ClauseEquals(equals=text) | ClauseEndsWith(ends_with=text):
            return (text,)
        case ClauseStartsWith(starts_with=text) | ClauseContains(contains=text):
            return (text,)
        case _:
            return ()


def _prefix(clause: MatchLogic) -> str | None:
    match clause:
        case ClauseStartsWith(starts_with=text) | ClauseContains(contains=text):
            return text
    return None


def _may_match(clause: MatchLogic, prefix: str) -> bool:
    """Whether a clause may match a longer name that begins with the prefix.

    A text inside the name counts if it is in the prefix, begins in it, or begins with punctuation, like `-audio`: it
    may follow any name. Other texts are names themselves, of another family of models.
    """
    match clause:
        case ClauseStartsWith(starts_with=text):
            return prefix.startswith(text.lower())
        case ClauseContains(contains=text):
            return text.lower() in prefix or _may_continue(prefix, text.lower())
        case ClauseEndsWith(ends_with=text):
            return _may_continue(prefix, text.lower())
        case ClauseRegex(regex=regex):
            return _overlap(prefix, _literal_beginning(regex))
        case ClauseAnd(and_=clauses):
            starts = [each.starts_with.lower() for each in clauses if isinstance(each, ClauseStartsWith)]
            return all(_overlap(prefix, start) for start in starts)
    return True


def _may_continue(prefix: str, text: str) -> bool:
    return not text[:1].isalnum() or any(prefix.endswith(text[:length]) for length in range(1, len(text)))


def _overlap(first: str, second: str) -> bool:
    return first.startswith(second) or second.startswith(first)


def _literal_beginning(regex: str) -> str:
    """Return the text with which every match begins; empty if it is not known."""
    found = re.match(r"\^((?:[\w@:/-]|\\[^\w])*)(?![?*{])", regex)
    return found[1].replace("\\", "").lower() if found else ""


def _described(clause: MatchLogic) -> str:
    match clause:
        case ClauseStartsWith(starts_with=text):
            return f"starts with {text}"
        case ClauseContains(contains=text):
            return f"contains {text}"
        case ClauseEndsWith(ends_with=text):
            return f"ends with {text}"
        case ClauseRegex(regex=text):
            return f"matches {text}"
    return "several conditions"
