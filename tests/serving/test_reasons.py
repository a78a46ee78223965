"""Why held applicants stand where they do, against what their model says of them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from stream.events.applicants import decode_applicant
from stream.events.records import APPLICANTS
from stream.events.wire import AllFeatures
from stream.histories.preferences import Preferred
from stream.model.columns import COUNT_COLUMNS, preference_columns
from stream.model.folder import GlobalModel
from stream.policy import HOUR_MS
from tests.kit import model
from tests.serving.asking import NOW_MS
from tests.serving.test_applicants import HELD, Holding, applicant
from tests.serving.test_embedded import with_histories
from tests.serving.test_scores import (
    CLOSED_MS,
    COUNT,
    a_market,
    boosted,
    new_ones,
    with_preferences,
)


@pytest.mark.parametrize("make", [model, with_histories, boosted, with_preferences])
def test_reasons_are_the_models_contributions(make: Callable[[], GlobalModel]) -> None:
    """Of what the worker published: the largest of all features, histories and preferences too."""
    global_model = make()
    market = a_market(global_model, HELD)
    at_ms = CLOSED_MS + HOUR_MS
    market.produce(new_ones(at_ms))
    market.clock(at_ms + HOUR_MS)
    market.run()
    asked = Holding(global_model)
    asked.now_ms = at_ms + HOUR_MS
    asked.hear(market.sent)
    latest = {each.key: each.value for each in market.sent if each.topic == APPLICANTS}
    open_ = [decode_applicant(value) for value in latest.values() if value is not None]
    assert len(open_) >= COUNT - 4
    for each in open_:
        assert isinstance(each.features.global_, list)
        numbers = [*each.features.global_]
        if global_model.takes_history:
            numbers += each.features.history or []
        preferred = each.features.preferences
        known: dict[str, float] = {}
        if isinstance(preferred, Preferred):
            known = dict(zip(COUNT_COLUMNS, preferred.counts, strict=True))
            for kind, weights in preferred.weights.items():
                columns = preference_columns([kind], counts=False)
                known |= dict(zip(columns, weights, strict=True))
        numbers += [known.get(name, 0.0) for name in global_model.columns[len(numbers) :]]
        *parts, _ = global_model.contributions(np.array(numbers, np.float32))
        wanted = [("global", *part) for part in parts]
        for effect, entity_id in (("per_member", each.member_id), ("per_job", each.job_id)):
            known_ = asked.store.entity(effect, entity_id)
            block = getattr(each.features, effect)
            mean = [0.0] * len(block) if known_ is None else known_.mean
            names = global_model.space.block(effect).names
            products = [z * x for z, x in zip(block, mean, strict=True)]
            wanted += [(effect, *part) for part in zip(names, products, strict=True)]
        found = asked.get(f"/{each.job_id}/applicants/{each.application_id}")["reasons"]
        wanted.sort(key=lambda part: -abs(part[2]))
        assert [reason["contribution"] for reason in found] == pytest.approx(
            [value for *_, value in wanted[:5] if value]
        )
        told = {(effect, name): value for effect, name, value in wanted}
        for reason in found:
            assert told[reason["effect"], reason["feature"]] == pytest.approx(
                reason["contribution"]
            )


def test_reasons_are_told_as_soon_as_the_model_is_at_hand() -> None:
    """Of one that was rolled in, the whole score before; nothing else has to change."""
    first = with_histories()
    manifest = msgspec.structs.replace(first.manifest, model_version="rolled in")
    asked = Holding(first)
    features = AllFeatures(global_=[-3.0], per_member=[0.0, 0.0], per_job=[0.0], history=[0.0] * 36)
    asked.publish(applicant("a", NOW_MS, features=features, score=3.0, model_version="rolled in"))
    names = []
    for _ in range(2):
        (found,) = asked.get("/j/applicants")["applicants"]
        names.append([(each["feature"], each["contribution"]) for each in found["reasons"]])
        asked.store.models.take(GlobalModel(manifest, first.scorer))
    assert names == [[("global_score", 3.0)], [(first.columns[0], 3.0)]]
