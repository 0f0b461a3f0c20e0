"""Fixtures for pytest; pytest finds them by itself where this package is installed.

    def test_upper(isect_broker):
        isect_broker.worker("upper", handle)
        with isect_broker.connect() as client:
            assert client.call("upper", b"hello") == b"HELLO"

    @pytest.mark.isect_broker(login_ms=500)       # settings and arguments of isect.testing.broker
    def test_slow_login(isect_broker): ...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .testing import RunningBroker

_running: pytest.StashKey[list[RunningBroker]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """Makes the mark known."""
    config.addinivalue_line("markers", "isect_broker(**settings): settings and arguments of "
                                       "isect.testing.broker for the fixture isect_broker")
    config.stash[_running] = []


@pytest.fixture
def isect_broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    """A broker for this test alone."""
    options: dict[str, Any] = {}
    for mark in reversed([*request.node.iter_markers("isect_broker")]):
        options.update(mark.kwargs)
    yield from _serve(request.config, options)


@pytest.fixture(scope="session")
def isect_broker_session(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    """A broker for all tests of the session, which share its services."""
    yield from _serve(request.config, {})


def _serve(config: pytest.Config, options: dict[str, Any]) -> Iterator[RunningBroker]:
    # Not before it is needed: pytest loads this file also for tests that have no broker.
    from .testing import broker

    with broker(**options) as made:
        config.stash[_running].append(made)
        try:
            yield made
        finally:
            config.stash[_running].remove(made)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]
                              ) -> Iterator[None]:
    """Shows the log of each broker that runs beside what a failed test printed."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed:
        for made in item.config.stash[_running]:
            report.sections.append(("log of isectd", made.log[-20_000:]))
