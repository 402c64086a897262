"""The properties of the event types agree with their structs and statuses."""

import pytest

from ledger.domain import campaign, content, cost, job, ledger_events, price
from ledger.domain.catalogue import CATALOGUE, names_of, sql_list, type_of
from ledger.domain.codec import plans_of
from ledger.domain.event_type import CATEGORIES, EventType

TYPES = pytest.mark.parametrize("kind", CATALOGUE.values(), ids=list(CATALOGUE))


def test_the_catalogue_has_every_type_of_every_noun_under_its_category() -> None:
    nouns = dict(zip(CATEGORIES, (campaign, content, job, cost, price, ledger_events), strict=True))

    listed = [(category, kind) for category, noun in nouns.items() for kind in noun.EVENTS]

    assert list(CATALOGUE.values()) == [kind for _, kind in listed]
    assert all(kind.category == category for category, kind in listed)
    assert all(CATALOGUE[kind.name] is type_of(kind.payload) is kind for _, kind in listed)


@TYPES
def test_a_type_with_a_budget_sets_the_budget(kind: EventType) -> None:
    assert kind.sets_budget == any(plan.name == "budget" for plan in plans_of(kind.payload))


@TYPES
def test_a_type_that_names_a_campaign_in_an_existing_stream_changes_the_campaign(kind: EventType) -> None:
    names_campaign = any(plan.name == "campaign_id" for plan in plans_of(kind.payload))

    assert kind.changes_campaign == (names_campaign and not kind.opens_stream)


@TYPES
def test_a_type_that_leads_to_an_end_status_of_jobs_ends_the_job(kind: EventType) -> None:
    assert kind.ends_job == (kind.category == "job" and kind.transition.to in job.ENDED)


@TYPES
def test_the_amount_of_a_cost_type_is_its_one_field_of_money(kind: EventType) -> None:
    money = [plan.name for plan in plans_of(kind.payload) if plan.kind == "money"]

    if kind.category == "cost" and not kind.denies_hold:
        assert money == ([kind.amount_field] if kind.amount_field else [])
    else:
        assert kind.amount_field is None


@TYPES
def test_a_type_opens_a_hold_if_its_stream_is_then_held(kind: EventType) -> None:
    assert kind.opens_hold == (kind.category == "cost" and kind.transition.to == "held")
    charges = kind.transition.to == "settled" or kind.name == "cost.priced"
    assert kind.is_fact == (kind.category == "cost" and charges and not kind.is_credit)
    assert kind.extends_hold == (
        kind.category == "cost" and kind.transition.allowed_from == ("held",) and not kind.transition.to
    )
    assert kind.denies_hold == (kind.category == "cost" and kind.transition.to == "denied")


def test_names_of_matching_types_are_listed_for_sql() -> None:
    assert names_of(lambda kind: kind.deletes_stream) == ("campaign.deleted", "content.deleted", "job.deleted")
    assert sql_list(lambda kind: kind.is_fact) == "'cost.recorded', 'cost.settled', 'cost.priced'"
