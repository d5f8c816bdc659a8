"""The status envelope and the metrics."""

from __future__ import annotations

import pytest

from ces.ops.metrics import Metric, Metrics
from ces.ops.status import envelope, go_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-1, "0s"),
        (45.9, "45s"),
        (60, "1m0s"),
        (3600, "1h0m0s"),
        (3723, "1h2m3s"),
        (90061, "25h1m1s"),
    ],
)
def test_uptime_is_a_duration_as_go_prints_it(seconds, text):
    assert go_duration(seconds) == text


def test_the_envelope_has_the_keys_that_the_monitoring_expects():
    assert envelope("ces-hub", "1.0.0", 61, {"nexus": {}}, None) == {
        "bin": "ces-hub",
        "statuscode": "healthy",
        "version": "1.0.0",
        "uptime": "1m1s",
        "info": {"nexus": {}},
    }


def test_a_sick_role_says_why():
    status = envelope("ces-hub", "1.0.0", 1, {"nexus": {}}, "no port could be opened")
    assert status["statuscode"] == "sick"
    assert status["info"] == {"reason": "no port could be opened", "nexus": {}}


def test_counters_and_gauges_with_and_without_labels_are_exposed():
    links = {(("kind", "hub"),): 2, (("kind", "messenger"),): 3}
    metrics = Metrics(
        lambda: {
            "ces_received_records": Metric("Records received.", "counter", 7),
            "ces_links": ("Live links.", "gauge", links),
            "ces_nothing": ("No labels yet.", "gauge", {}),
        }
    )
    lines = metrics.exposition().decode().splitlines()
    assert "# TYPE ces_received_records_total counter" in lines
    assert "ces_received_records_total 7.0" in lines
    assert "# HELP ces_links Live links." in lines
    assert 'ces_links{kind="hub"} 2.0' in lines
    assert 'ces_links{kind="messenger"} 3.0' in lines
    assert "# TYPE ces_nothing gauge" in lines
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)


def test_two_applications_in_one_process_do_not_mix():
    one = Metrics(lambda: {"one": ("One.", "gauge", 1)}).exposition()
    two = Metrics(lambda: {"two": ("Two.", "gauge", 2)}).exposition()
    assert b"one 1.0" in one and b"two" not in one
    assert b"two 2.0" in two and b"one" not in two
