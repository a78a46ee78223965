"""SHELL: trains the model that is due on the labels of workers, judges it, and rolls it in."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Never

from msgspec.structs import replace

from stream.backtest.training import train_from_labels
from stream.configuration.sections import Config
from stream.errors import (
    BrokerError,
    ConfigError,
    HearbackError,
    ModelError,
    ModelTooLargeError,
)
from stream.kafka.cluster import look_at_cluster
from stream.kafka.connection import Broker
from stream.kafka.whole import WholeTopic
from stream.model import words
from stream.model.folder import GlobalModel, load_model, save_model
from stream.model.held_out import Judgement, Unjudged, check_not_worse
from stream.partitions.commands import Refusal, check_roll
from stream.progress import hidden
from stream.refresh.newest import newest_label_ms
from stream.refresh.plan import Plan, name_of
from stream.stages.succession import check_fits
from stream.units import format_time
from stream.worker.control import last_refusal, roll_in, send_command, sent_rolls

_PAUSE_S: Final = 5.0  # between two looks
_ANSWER_S: Final = 10.0


class Refresher:
    """Refreshes the global model of one application id.

    Args:
        broker: Kafka. settings: the label policy, the application id, and where both are from.
        labels: topic of the labels.
        first: the model that the workers' state began with.
        folder: models are written below it, each in one of its own.
        every_ms: how often, by event time.
        margin: by which the AUC may be lower, and the log loss higher, than before.
        say: told what was done, a sentence at a time.

    Raises:
        ConfigError: there is no such topic, or no model can follow the first.
        BrokerError: the broker does not answer.

    """

    def __init__(
        self,
        broker: Broker,
        settings: Config,
        labels: str,
        first: GlobalModel,
        folder: Path,
        *,
        every_ms: int,
        margin: float,
        say: Callable[[str], None],
    ) -> None:
        check_roll(first, first, settings.policy)
        partitions = look_at_cluster(broker, _ANSWER_S).partitions.get(labels)
        if partitions is None:
            raise ConfigError(f"there is no topic {labels} on {broker}")
        self._broker, self._labels, self._partitions = broker, labels, partitions
        self._settings, self._first, self._folder = settings, first, folder
        self._margin, self._say = margin, say
        lateness_ms = settings.policy.labels.allowed_lateness_ms
        self._plan = Plan(every_ms, lateness_ms, first.manifest.trained_until_ms)

    def run(self) -> Never:
        """Look again and again. While the broker is away, wait for it."""
        trouble = ""
        while True:
            try:
                self.look()
                trouble = ""
            except BrokerError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    self._say(f"waiting for the broker: {trouble}")
            time.sleep(_PAUSE_S)

    def look(self) -> None:
        """Refresh the model if that is due.

        Raises:
            BrokerError: the broker does not answer; nothing is lost.
            ConfigError: the folder has models of something else.

        """
        now_ms = self._now_ms()
        if self._plan.due(now_ms) is None:
            return
        application_id = self._settings.worker.application_id
        rolls = sent_rolls(self._broker, application_id)
        for roll in rolls:
            self._plan.done(roll.model.manifest.trained_until_ms)
        refused = last_refusal(self._broker, application_id)
        if refused is not None and refused.holds_for(self._margin):
            self._plan.done(refused.until_ms)
        until_ms = self._plan.due(now_ms)
        if until_ms is None:
            return
        before = rolls[-1].model.model() if rolls else self._first
        name = name_of(until_ms)
        refusal = Refusal(until_ms, "worse", self._margin, time.time_ns() // 1_000_000)
        judged = not (self._folder / name).exists()  # or it was before, and is only read
        try:
            model = self._model(name, until_ms, before)
            from_ms = self._plan.in_force_from(self._now_ms())
            roll_in(self._broker, application_id, model, from_ms)
        except ModelError as error:
            self._refuse(name, error, refusal if judged else None)
        except ModelTooLargeError as error:
            self._refuse(name, error, replace(refusal, reason="too_large", margin=None))
        else:
            self._say(
                f"{name}: model {model.version} in {self._folder / name} scores applications from"
                f" {format_time(from_ms)} on"
            )
        self._plan.done(until_ms)

    def _refuse(self, name: str, error: HearbackError, refusal: Refusal | None) -> None:
        self._say(f"{name}: the model before stays: {error}")
        if refusal is not None:
            send_command(self._broker, self._settings.worker.application_id, refusal)

    def _now_ms(self) -> int:
        return newest_label_ms(self._broker, self._labels, self._partitions)

    def _model(self, name: str, until_ms: int, before: GlobalModel) -> GlobalModel:
        """Return the model of a period: of its folder, if it got no further last time, or trained.

        Raises:
            ModelError: it is worse than the one before, or nobody can tell.
            ConfigError: what lies in its folder is something else.

        """
        folder, partial = self._folder / name, self._folder / f".{name}.part"
        if folder.exists():
            model = load_model(folder)
            check_fits(model, before, self._settings.policy)
            if model.manifest.trained_until_ms != until_ms:
                raise ConfigError(f"{folder} was trained until another time: name another --out")
            self._say(f"{name}: model {model.version} was trained before")
            return model

        def accept(judged: Judgement | Unjudged) -> None:
            check_not_worse(judged, f"model {before.version}", self._margin)

        with hidden():
            found = train_from_labels(
                WholeTopic(self._broker, self._labels).values,
                self._settings,
                until_ms=until_ms,
                kind=before.manifest.kind,
                before=before,
                accept=accept,
                keep_prior=True,
            )
        shutil.rmtree(partial, ignore_errors=True)
        save_model(partial, found.model)
        partial.rename(folder)
        self._say(f"{name}: {words.subject(found.model.manifest)}; {words.held_out(found.judged)}")
        return found.model
