"""Refused logins have budgets, by name, by address and by both, which recover as time passes."""

from datetime import UTC, datetime, timedelta

import pytest

from scheduler.model.errors import TooManyLogins
from scheduler.security.throttle import BY_ADDRESS, BY_BOTH, BY_NAME, MOST_KEPT, LoginThrottle

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def spend(throttle: LoginThrottle, name: str, address: str, times: int) -> None:
    for _ in range(times):
        throttle.begin("dev", name, address, NOW)


def test_the_budget_of_a_name_is_spent_from_many_addresses_and_recovers():
    throttle = LoginThrottle()
    for number in range(BY_NAME.attempts):
        throttle.begin("dev", "ada", f"192.0.{number // 10}.2", NOW)
    with pytest.raises(TooManyLogins) as refused:
        throttle.begin("dev", "ada", "198.51.100.1", NOW)
    assert refused.value.retry_after_s == BY_NAME.recovery_s
    throttle.begin("other", "ada", "198.51.100.1", NOW)
    throttle.begin("dev", "ada", "198.51.100.1", NOW + timedelta(seconds=BY_NAME.recovery_s))


@pytest.mark.parametrize("same", ["198.51.100.1", "::ffff:198.51.100.1"])
def test_the_budget_of_an_address_is_spent_on_many_names(same: str):
    throttle = LoginThrottle()
    for number in range(BY_ADDRESS.attempts):
        throttle.begin("dev", f"user{number}", "198.51.100.1", NOW)
    with pytest.raises(TooManyLogins):
        throttle.begin("dev", "ada", same, NOW)
    throttle.begin("dev", "ada", "198.51.100.2", NOW)


def test_all_addresses_of_an_ipv6_network_are_one():
    throttle = LoginThrottle()
    for number in range(BY_ADDRESS.attempts):
        throttle.begin("dev", f"user{number}", f"2001:db8::{number:x}", NOW)
    with pytest.raises(TooManyLogins):
        throttle.begin("dev", "ada", "2001:db8::ffff:1", NOW)
    throttle.begin("dev", "ada", "2001:db8:1::1", NOW)


def test_one_address_alone_keeps_nobody_else_out():
    throttle = LoginThrottle()
    spend(throttle, "ada", "192.0.2.1", BY_BOTH.attempts)
    with pytest.raises(TooManyLogins) as refused:
        throttle.begin("dev", "ada", "192.0.2.1", NOW)
    assert refused.value.retry_after_s == BY_BOTH.recovery_s
    throttle.begin("dev", "ada", "198.51.100.1", NOW)


def test_a_login_that_succeeds_costs_nothing_and_pardons_nothing():
    throttle = LoginThrottle()
    spend(throttle, "ada", "192.0.2.1", BY_BOTH.attempts - 1)
    for _ in range(3):
        throttle.begin("dev", "ada", "192.0.2.1", NOW)
        throttle.succeeded("dev", "ada", "192.0.2.1", NOW)
    throttle.begin("dev", "ada", "192.0.2.1", NOW)
    with pytest.raises(TooManyLogins):
        throttle.begin("dev", "ada", "192.0.2.1", NOW)


def test_names_without_end_take_no_memory_without_end():
    throttle = LoginThrottle()
    for number in range(MOST_KEPT + 10):
        throttle.begin("dev", f"user{number}", str(number), NOW)
    assert len(throttle._spent) == MOST_KEPT
