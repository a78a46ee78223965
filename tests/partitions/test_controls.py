"""Control records: what readers of the coefficients have to know besides."""

from __future__ import annotations

from msgspec.structs import replace

from stream.events.records import COEFFICIENTS
from stream.events.structs import Control, ModelSince
from stream.events.wire import decode_coefficients
from stream.partitions.controls import Controls
from stream.quality.gate import Gate
from stream.stages.succession import Roll, Succession
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore
from tests.kit import Market, application, engagement, model, parse_policy
from tests.partitions.test_partitions import POLICY


def records(market: Market) -> dict[str, Control]:
    """Return the newest control record of each key."""
    found = {}
    for message in market.sent:
        if message.topic == COEFFICIENTS and (message.key or b"").startswith(b"control:"):
            coefficients = decode_coefficients(message.value or b"")
            if coefficients.read:
                continue
            assert isinstance(coefficients.control, Control)
            assert coefficients.effect == "control"
            assert f"control:{coefficients.entity_id}".encode() == message.key
            found[coefficients.entity_id] = coefficients.control
    return found


def test_they_come_with_the_first_coefficients_and_with_what_changes() -> None:
    """One for each effect and partition that has published; priors by feature; the gate's state."""
    policy = parse_policy("[effects.per_member]\nprior_precision = { m1 = 5 }\n", POLICY)
    market = Market(policy, 1)
    market.produce([application("a", 10)])
    market.run()
    assert records(market) == {}
    market.produce([engagement("e", "a", 20)])
    market.run()
    models = [ModelSince("test-model", 0)]
    job = Control(effect="per_job", partition=0, models=models, gate="open", prior_precision=[3.0])
    member = replace(job, effect="per_member", prior_precision=[3.0, 5.0])
    assert records(market) == {"per_job:0": job, "per_member:0": member}
    sent = len(market.sent)
    judged = market.partitions["job", 0].judged
    judged._state.gate = Gate(cause="final")
    judged._state_changed = True
    market.produce([application("b", 30), engagement("f", "b", 40)])
    market.run()
    assert records(market) == {"per_job:0": replace(job, gate="shut"), "per_member:0": member}
    market.restart("job", 0)
    market.produce([application("c", 50)])
    market.run()
    keys = [message.key for message in market.sent[sent:] if message.topic == COEFFICIENTS]
    assert keys.count(b"control:per_job:0") == 1
    assert keys.count(b"control:per_member:0") == 0


def test_models_stand_in_order_of_time_without_those_that_never_are_in_force() -> None:
    """Rolled in later for the same time or an earlier one, a model takes the others' place."""
    succession = Succession(Overlay(MemoryStore()), model().version)
    controls = Controls(2, {"per_job": [3.0]}, succession, "per_job")
    for roll in (Roll(50, "b"), Roll(90, "c"), Roll(70, "d"), Roll(70, "e")):
        succession.add(roll)
    assert controls.take(0, gate_open=True) == []
    controls.due = True
    (message,) = controls.take(1, gate_open=True)
    found = decode_coefficients(message.value or b"")
    assert found.control
    assert found.control.models == [
        ModelSince("test-model", 0),
        ModelSince("b", 50),
        ModelSince("e", 70),
    ]
    assert (found.model_version, found.event_time_ms, found.mean) == ("e", 70, [])
    for since, until in ((0, 50), (50, 70), (70, 99)):
        version = [each.model_version for each in found.control.models if each.from_ms <= since][-1]
        assert {succession.version_at(time) for time in range(since, until)} == {version}
    assert controls.take(2, gate_open=True) == []
    succession.add(Roll(80, "f"))
    assert len(controls.take(3, gate_open=True)) == 1
