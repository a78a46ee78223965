"""Histories go with whoever is forgotten or has expired; states of before go on without them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from stream.events.structs import Forget
from stream.events.wire import encode
from stream.histories.history import History
from stream.policy import EffectSettings, Policy
from stream.replay.run_folder import RunFolder
from stream.replay.savepoint import Options
from stream.replay.single import replay
from stream.state import codec, keys
from stream.state.facts import Facts
from stream.state.store import MemoryStore, Store
from tests.bootstrap.test_split import Sink, taken_over
from tests.histories.test_convergence import stored
from tests.histories.test_first_sight import unpacked
from tests.kit import SPACE, Market, TestEvent, application, engagement, model
from tests.replay.test_single import lines_of
from tests.stages.test_entities import KEEPING, LEAVING, TTL, W, forget


def counts(market: Market) -> dict[tuple[str, str], tuple[int, int]]:
    """Applications and answers of members and jobs."""
    return {
        entity: (history.applications, history.answers)
        for entity, history in stored(market.stores.values())
    }


def pairs(stores: list[Store]) -> dict[tuple[str, str], int]:
    """Applications of pairs."""
    found: dict[tuple[str, str], int] = {}
    for store in stores:
        for key, value in store.scan(keys.PAIR, keys.after(keys.PAIR)):
            member, job = keys.parts(key)
            history: History = codec.HISTORY.decode(value)
            found[member.decode(), job.decode()] = history.applications
    return found


def market_of_two(policy: Policy = KEEPING, partitions: int = 3) -> Market:
    """Members m and n, each answered by jobs j and k."""
    market = Market(policy, partitions)
    for member in "mn":
        for job in "jk":
            name = member + job
            market.produce(
                [
                    application(name, 10_000, member=member, job=job),
                    engagement(f"e{name}", name, 10_001, "reject", member=member, job=job),
                ]
            )
    market.run()
    return market


@pytest.mark.parametrize("restarted", [False, True])
def test_a_forgotten_member_takes_pairs_along(restarted: bool) -> None:
    """Its history goes and its pairs, in every partition; later answers bring nothing back."""
    market = market_of_two()
    everything = dict.fromkeys(
        [("member", "m"), ("member", "n"), ("job", "j"), ("job", "k")], (2, 2)
    )
    assert counts(market) == everything
    assert len(pairs(list(market.stores.values()))) == 4
    forget(market, 10_500, member="m")
    market.run()
    if restarted:
        for place in list(market.partitions):
            market.restart(*place)
    market.produce(
        [
            engagement("late", "mj", 10_600, member="m", job="j"),
            application("too-late", 10_400, member="m", job="k"),
        ]
    )
    market.run()
    assert counts(market) == {key: value for key, value in everything.items() if key[1] != "m"}
    assert pairs(list(market.stores.values())).keys() == {("n", "j"), ("n", "k")}
    market.produce([application("again", 10_700, member="m", job="j")])
    market.run()
    assert counts(market)["member", "m"] == (1, 0)
    assert counts(market)["job", "j"] == (3, 2)
    assert pairs(list(market.stores.values()))["m", "j"] == 1


def test_a_forgotten_job_takes_pairs_along() -> None:
    """Its history goes and its pairs; members keep what they have."""
    market = market_of_two()
    forget(market, 10_500, job="j")
    market.run()
    market.produce(
        [
            engagement("late", "mj", 10_600, member="m", job="j"),
            application("too-late", 10_400, member="m", job="j"),
        ]
    )
    market.run()
    assert {("job", "k"): (2, 2), ("member", "n"): (2, 2)}.items() <= counts(market).items()
    assert ("job", "j") not in counts(market)
    assert pairs(list(market.stores.values())).keys() == {("m", "k"), ("n", "k")}


def test_a_replay_forgets_likewise() -> None:
    """A forget in a log takes histories and pairs along, and live workers that go on know it."""
    log: list[TestEvent] = [
        application("a", 10_000, member="m"),
        engagement("e", "a", 10_001, member="m"),
        application("b", 10_002, member="n"),
    ]
    forgetting = encode(Forget(member_id="m", event_time_ms=10_500))
    sink = Sink()
    replay(lines_of([*log, forgetting]), sink, KEEPING, model(), SPACE, Options())
    assert [entity for entity, _ in stored([sink.store])] == [("job", "j"), ("member", "n")]
    assert pairs([sink.store]) == {("n", "j"): 1}
    market = Market(KEEPING, 2)
    taken_over(sink, market)
    market.produce([application("c", 10_400, member="m"), application("d", 10_600, member="m")])
    market.run()
    assert counts(market)["member", "m"] == (1, 0)
    assert pairs(list(market.stores.values())) == {("n", "j"): 1, ("m", "j"): 1}


def test_histories_expire_with_their_entities() -> None:
    """With ``entity_ttl`` a quiet member's history goes when the member does; pairs go before."""
    market = market_of_two(LEAVING, 1)
    market.clock(10_000 + 2 * W)
    market.run()
    assert len(pairs(list(market.stores.values()))) == 4
    market.clock(10_000 + 2 * W + 1)
    market.run()
    assert not pairs(list(market.stores.values()))
    assert len(counts(market)) == 4
    market.clock(10_000 + TTL + 1)
    market.run()
    assert not counts(market)
    assert LEAVING.effects["per_member"] == EffectSettings(entity_ttl_ms=TTL)


def test_a_state_of_the_release_before_goes_on() -> None:
    """What was open then has no history, and counts for nothing; what comes is counted."""
    market = Market(KEEPING, 2)
    market.produce([application("a", 10_000, member="m"), application("b", 10_000, member="n")])
    market.run()
    for (stage, number), store in market.stores.items():
        old = {key: value for key, value in store.scan(b"\0", b"\xff") if key[:1] not in b"cm"}
        for key, value in old.items():
            if key[:1] == keys.APPLICATION:
                record = codec.APPLICATION.decode(value)
                assert isinstance(record, Facts)
                old[key] = codec.APPLICATION.encode(msgspec.structs.replace(record, history=None))
        market.stores[stage, number] = MemoryStore()
        market.stores[stage, number].write(old)
        market.restart(stage, number)
    market.produce(
        [
            engagement("e", "a", 10_100, member="m"),
            application("c", 10_200, member="m"),
            engagement("f", "c", 10_300, member="m"),
        ]
    )
    market.run()
    assert counts(market) == {("member", "m"): (1, 1), ("job", "j"): (1, 1)}
    histories = {label.application_id: label.history for label in market.labels()}
    assert histories["a"] is None
    assert not unpacked(histories["c"])[[0, 12, 24]].any()


def test_scores_and_labels_of_a_run_carry_them(tmp_path: Path) -> None:
    """``scores.jsonl`` and ``labels.jsonl`` have the same 36 numbers."""
    log: list[TestEvent] = [
        application("a", 0, member="m"),
        application("b", 5, member="m"),
        engagement("e", "b", 6, member="m"),
    ]
    with RunFolder(tmp_path / "run") as folder:
        replay(lines_of(log), folder, Policy(), model(), SPACE, Options(close=True))
    scores = [
        msgspec.json.decode(x) for x in (tmp_path / "run/scores.jsonl").read_bytes().splitlines()
    ]
    labels = [
        msgspec.json.decode(x) for x in (tmp_path / "run/labels.jsonl").read_bytes().splitlines()
    ]
    by_name = {row["application_id"]: row["history"] for row in scores}
    assert [by_name["a"][0], by_name["b"][0], len(by_name["b"])] == [0.0, 1.0, 36]
    for label in labels:
        assert label["features"]["history"] == by_name[label["application_id"]]
