"""Names of models in genai-prices: kept only if the price book finds by them what the library finds."""

from genai_prices.types import (
    ClauseContains,
    ClauseEquals,
    ClauseOr,
    ClauseRegex,
    ClauseStartsWith,
    MatchLogic,
    ModelInfo,
)

from ledger.prices.genai_names import ModelNames, NameTable


def names(*models: tuple[str, MatchLogic]) -> list[ModelNames | None]:
    table = NameTable([ModelInfo(id=name, match=match) for name, match in models])
    return [table.names_of(index) for index in range(len(models))]


def any_of(*clauses: MatchLogic) -> ClauseOr:
    return ClauseOr(or_=list(clauses))


def test_names_are_written_as_the_library_does_and_in_lower_case() -> None:
    (found,) = names(("org/Model-7B", any_of(ClauseEquals("org/Model-7B"), ClauseEquals("Model"))))

    assert found == ModelNames(["Model", "model", "org/model-7b"], [], [])


def test_a_text_that_names_contain_becomes_a_prefix_and_the_rest_is_left_out() -> None:
    (found,) = names(("nova", ClauseContains("amazon.nova")))

    assert found == ModelNames(["amazon.nova"], ["amazon.nova"], ["contains amazon.nova"])


def test_a_name_belongs_to_the_first_model_that_matches_it() -> None:
    first, second = names(("gpt", ClauseStartsWith("gpt")), ("gpt-mini", ClauseEquals("gpt-mini")))

    assert first == ModelNames(["gpt-mini"], ["gpt"], [])
    assert second is None


def test_the_longest_prefix_is_kept_only_if_it_stands_first() -> None:
    kept = names(("mini", ClauseStartsWith("gpt-mini")), ("gpt", ClauseStartsWith("gpt")))
    hidden = names(("gpt", ClauseStartsWith("gpt")), ("mini", ClauseStartsWith("gpt-mini")))

    assert [found and found.prefixes for found in kept] == [["gpt-mini"], ["gpt"]]
    assert [found and found.prefixes for found in hidden] == [["gpt"], []]


def test_a_prefix_is_left_out_if_an_earlier_pattern_may_match_longer_names() -> None:
    for earlier in (
        ClauseContains("-audio"),
        ClauseContains("gpt"),
        ClauseContains("4o-realtime"),
        ClauseRegex(r"^gpt-4o-\d+$"),
        ClauseRegex("audio"),
    ):
        _, found = names(("earlier", earlier), ("model", any_of(ClauseEquals("a"), ClauseStartsWith("gpt-4o"))))

        assert found is not None
        assert (found.prefixes, found.left_out) == ([], ["starts with gpt-4o"]), earlier


def test_a_prefix_is_kept_beside_patterns_of_other_families() -> None:
    for other in (ClauseContains("claude-v2"), ClauseRegex(r"^claude-5\.1-\d{8}$")):
        _, found = names(("claude", other), ("gpt-4o", ClauseStartsWith("gpt-4o")))

        assert found == ModelNames([], ["gpt-4o"], []), other
