"""Whole topologies under faults, simulated: nothing is lost, twice, out of order or nowhere."""

from __future__ import annotations

from collections import Counter

from tests.stress.scenario import FAULTS, PLENTY, ROOMS, Draft, Scenario, shortest
from tests.stress.topologies import Simulation, describe, play, run_seeds
from tests.support.world import world

SEEDS = 1000
SEED = 11


def test_no_topology_breaks_the_promise() -> None:
    for scenario, findings in run_seeds(range(SEED, SEED + SEEDS)):
        raise AssertionError(describe(scenario, findings))


def test_a_hub_that_stops_does_not_leave_behind_what_a_proxy_answers_in_its_stead() -> None:
    away = (1.75, "answer", "h0", 503, 30), (1.75, "cut", "m0", "h0", "reset", 1.0, 1.0)
    scenario = Scenario(
        seed=1,
        hubs=("h0",),
        fixed=(),
        links=(),
        messengers=(("m0", "h0", ("A",)),),
        repeaters=(),
        outsides=(),
        buffer=6000,
        total=PLENTY,
        idle=5.0,
        rounds=(away,),
    )
    for hundredths in range(290, 300):  # the messenger dials again at 2.97
        stop = (hundredths / 100, "restart", "h0", "stop", 0.0)
        assert play(scenario.with_steps([(0, step) for step in (*away, stop)])) == []


def test_what_a_repeater_had_when_it_was_cut_from_a_hub_that_stops_may_come_from_the_next_one_too() -> None:
    steps = (
        (0.0342, "send", "m1", "B", 1, 200),
        (0.0864, "send", "m0", "A", 1, 200),
        (0.1644, "restart", "h0", "stop", 0.5),
        (0.1884, "cut", "r0", "h0", "end", 1.0, 0.0),
    )
    scenario = Scenario(
        seed=20073221,
        hubs=("h0",),
        fixed=("h0",),
        links=(),
        messengers=(("m0", "h0", ("A", "B", "C")), ("m1", "h0", ("*",))),
        repeaters=(("r0", "h0"), ("r1", "h0")),
        outsides=(),
        buffer=6000,
        total=PLENTY,
        idle=5.0,
        rounds=(steps,),
    )
    with world(scenario.seed) as made:
        simulation = Simulation(scenario, made)
        assert simulation.run() == []
    sent = 2 + 2 * len(ROOMS)
    assert simulation.history.arrivals["sh0.1"] == sent + 1


def traced(scenario: Scenario) -> tuple[object, ...]:
    """What happened in a run, as far as a history knows it."""
    with world(scenario.seed) as made:
        simulation = Simulation(scenario, made)
        simulation.run()
        return made.now, made.happened, repr(vars(simulation.history))


def test_a_seed_gives_the_same_run_each_time() -> None:
    for seed in range(5):
        assert traced(Draft(seed).scenario()) == traced(Draft(seed).scenario())


def test_events_flow_and_faults_strike() -> None:
    arrived: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    struck = 0
    for seed in range(60):
        scenario = Draft(seed).scenario()
        steps.update(step[1] for _, step in scenario.steps)
        with world(seed) as made:
            simulation = Simulation(scenario, made)
            simulation.run()
        arrived.update(simulation.history.arrivals)
        struck += simulation.struck
    assert {name[0] for name in arrived} == {"m", "s"}, "messengers and sinks get events"
    assert sum(arrived.values()) > 60 * 30
    assert steps.keys() >= {
        "send",
        "cut",
        "stall",
        "delay",
        "answer",
        "close",
        "sleep",
        "restart",
        "rooms",
        "dial",
    }
    assert struck > 60


def test_faults_can_be_chosen() -> None:
    steps = {step[1] for seed in range(20) for _, step in Draft(seed, ["cut"]).scenario().steps}
    assert steps == {"send", "cut"}
    assert {"twin", "wall", "flap"} <= FAULTS.keys()


def test_a_scenario_that_fails_is_shortened_to_the_steps_that_it_needs() -> None:
    scenario = next(
        scenario
        for scenario in (Draft(seed).scenario() for seed in range(100))
        if {"cut", "send"} <= {step[1] for _, step in scenario.steps}
    )

    def fails(candidate: Scenario) -> bool:
        return {"cut", "send"} <= {step[1] for _, step in candidate.steps}

    short = shortest(scenario, fails)
    assert sorted(step[1] for _, step in short.steps) == ["cut", "send"]
    assert len(scenario.steps) > 2
    kept = {step[2] for _, step in short.steps}
    assert {name for name, *_ in short.messengers} <= kept | {
        name for name, *_ in scenario.messengers if short.names(name)
    }
