"""Every exception class of the project is in one tree, under LedgerError, and is named by one rule."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest

import ledger
import projections
from ledger.api.problems import STATUS
from ledger.domain.errors import LedgerError


def exceptions() -> Iterator[type[BaseException]]:
    """Yield the exception classes of both packages; private ones serve the control flow of one module."""
    for package in (ledger, projections):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                for _, member in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                    if (
                        issubclass(member, BaseException)
                        and member.__module__ == module.name
                        and not member.__name__.startswith("_")
                    ):
                        yield member


EXCEPTIONS = sorted(exceptions(), key=lambda kind: kind.__name__)
BELOW_ROOT = [kind for kind in EXCEPTIONS if kind is not LedgerError]


def has_problem_type(kind: type[BaseException]) -> bool:
    """Whether clients receive the error, or a subclass of it, as a problem type."""
    return "slug" in vars(kind) or any(has_problem_type(subclass) for subclass in kind.__subclasses__())


@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_an_exception_class_derives_from_ledger_error_and_has_a_title(kind: type[BaseException]) -> None:
    assert issubclass(kind, LedgerError)
    assert kind.__doc__


@pytest.mark.parametrize("kind", BELOW_ROOT, ids=lambda kind: kind.__name__)
def test_an_error_is_named_after_its_problem_type_or_ends_in_error(kind: type[BaseException]) -> None:
    if slug := vars(kind).get("slug"):
        assert kind.__name__.endswith("".join(word.capitalize() for word in slug.split("-")))
    else:
        assert kind.__name__.endswith("Error") is not has_problem_type(kind)


def test_every_problem_type_has_a_status() -> None:
    assert {kind.slug for kind in EXCEPTIONS if issubclass(kind, LedgerError)} <= STATUS.keys()
