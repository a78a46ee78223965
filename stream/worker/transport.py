"""Record batches through Faust: one message for what one fetch brought of one partition.

Faust's cost is per message, so this driver, a subclass of Faust's aiokafka one, hands it whole
batches; assignment and agents stay Faust's. Everything that leans on private parts of Faust, mode
or aiokafka is here and in the two modules below, :mod:`stream.worker.consumer` (positions) and
:mod:`stream.worker.fetching` (the thread that reads); :mod:`stream.worker.faust_internals` lists
them and says when one of them has changed. What differs from Faust's own driver:

- **Positions.** A batch says where its fetch began and where it ended, past transaction markers
  and aborted records. A fetch that moved without a record is an empty batch.
- **Acknowledging is explicit**, :meth:`BatchConsumer.acknowledge`: Faust acknowledges also what
  raised. The end of the newest acknowledged batch is what is committed.
- **A set of partitions that is empty means none.** aiokafka's own fetch takes it for all of them,
  and Faust's set empties whenever all buffers are full.
- **A position that the topic no longer has is an error**, never a jump.
- **Between a rebalance's start and its end no input is fetched**, also where Faust's recovery of
  the rebalance before lets it flow: those batches would be lost, and the last of a topic with them.
- All is read ``read_committed``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from faust import App
from faust.serializers.schemas import Schema
from faust.transport.drivers import aiokafka as faust_driver
from faust.types import AppT, Message
from faust.types.transports import ConsumerT, ProducerT

from stream.worker.consumer import BatchConsumer
from stream.worker.faust_internals import check_faust_internals
from stream.worker.fetching import HookedTransport, Hooks


class BatchSchema(Schema[Any, Any]):
    """The schema of topics whose messages are batches already: nothing is decoded."""

    def compile(
        self,
        app: AppT,
        *,
        on_key_decode_error: object = None,
        on_value_decode_error: object = None,
        default_propagate: bool = False,
    ) -> Callable[..., Any]:
        """Return the function by which Faust turns a message of the topic into an event."""
        del on_key_decode_error, on_value_decode_error, default_propagate  # nothing can go wrong
        create_event = app.create_event

        async def decode(message: Message, **_: bool) -> Any:
            return create_event(message.key, message.value, message.headers, message)

        return decode


class BatchTransport(HookedTransport):
    """The driver to set as ``app.transport``."""

    Consumer: ClassVar[type[ConsumerT]] = BatchConsumer
    Producer: ClassVar[type[ProducerT]] = faust_driver.Producer


def install_transport(app: App, hooks: Hooks) -> None:
    """Check Faust's internals and make the app use record batches; before it starts."""
    check_faust_internals()
    transport = BatchTransport(app.conf.broker_consumer, app)
    transport.hooks = hooks
    app.transport = transport
