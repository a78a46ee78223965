"""A throw-away Kafka broker inside this process: librdkafka's mock cluster, by ctypes.

Used by ``hearback broker``, ``hearback demo`` and the tests. The mock cluster comes with the
confluent-kafka wheel but has no Python interface; ctypes reaches its few C functions
(rdkafka_mock.h), so that topics get exactly the partitions they are asked for.
"""

from __future__ import annotations

import ctypes
from typing import Self

import confluent_kafka.cimpl as _wheel

from stream.errors import BrokerError, ConfigError

CLUSTER_ID_PREFIX = "mockCluster"
"""How a mock cluster's id begins; a Kafka's is a random UUID in base 64."""

_RD_KAFKA_PRODUCER = 0  # rd_kafka_type_t
_RD_KAFKA_CONF_OK = 0  # rd_kafka_conf_res_t
_JOIN_DELAY_MS = 200  # a new consumer group waits for more members; 3 s unless set
_ERROR_SIZE = 512  # bytes for librdkafka's error texts, as in its own examples


class EmbeddedBroker:
    """One Kafka-protocol broker on a free port of 127.0.0.1, for trying things out and for tests.

    It keeps nothing: all is gone when it is closed, and a partition keeps only its newest 5 MB;
    what is older is dropped, read or not. It does not compact, and it shows the records of aborted
    transactions. Its transactional batches carry a wrong checksum (consume with the check off).
    Use it as a context manager, or call :meth:`close`.
    """

    def __init__(self) -> None:
        self._topics: dict[str, int] = {}
        self._client: int | None = None
        self._cluster: int | None = None
        self._lib = _librdkafka()
        error = ctypes.create_string_buffer(_ERROR_SIZE)
        conf = self._lib.rd_kafka_conf_new()
        # A mock cluster says what it does at level 'notice'; a null callback drops all of it.
        self._lib.rd_kafka_conf_set_log_cb(conf, None)
        for name, value in ((b"client.id", b"embedded-broker"), (b"log_level", b"0")):
            done = self._lib.rd_kafka_conf_set(conf, name, value, error, _ERROR_SIZE)
            if done != _RD_KAFKA_CONF_OK:
                raise BrokerError(f"the embedded broker cannot start: {_text(error)}")
        self._client = self._lib.rd_kafka_new(_RD_KAFKA_PRODUCER, conf, error, _ERROR_SIZE)
        if not self._client:
            self._lib.rd_kafka_conf_destroy(conf)
            raise BrokerError(f"the embedded broker cannot start: {_text(error)}")
        self._cluster = self._lib.rd_kafka_mock_cluster_new(self._client, 1)
        if not self._cluster:
            self.close()
            raise BrokerError("the embedded broker cannot start: no port on 127.0.0.1?")
        self._lib.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, _JOIN_DELAY_MS)
        address: bytes = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster)
        self.bootstrap_servers: str = address.decode()
        """Where clients connect: ``127.0.0.1:port``."""

    def create_topics(self, partitions: dict[str, int]) -> None:
        """Create topics by name with that many partitions each; the same again is no error.

        Args:
            partitions: topic → number of partitions. A topic that is used without being created
                here comes into being on first use, with 4 partitions.

        Raises:
            ConfigError: a number below 1, or the topic exists with another number of partitions.
            BrokerError: librdkafka refuses, or the broker is closed.

        """
        if self._cluster is None:
            raise BrokerError("the embedded broker is closed: no topic can be created")
        for topic, count in partitions.items():
            if self._topics.get(topic) == count:
                continue
            if count < 1:
                raise ConfigError(f"topic {topic} needs at least one partition, not {count}")
            code = self._lib.rd_kafka_mock_topic_create(self._cluster, topic.encode(), count, 1)
            if code:
                reason: bytes = self._lib.rd_kafka_err2str(code)
                if topic in self._topics:
                    raise ConfigError(
                        f"topic {topic} exists on the embedded broker with {self._topics[topic]} "
                        f"partitions, not {count}: start a new broker"
                    )
                raise BrokerError(
                    f"the embedded broker cannot create topic {topic} with {count} partitions: "
                    f"{reason.decode()}"
                )
            self._topics[topic] = count

    def close(self) -> None:
        """Stop the broker and free its port; everything in it is gone. May be called twice."""
        cluster, self._cluster = self._cluster, None
        client, self._client = self._client, None
        if cluster:
            self._lib.rd_kafka_mock_cluster_destroy(cluster)
        if client:
            self._lib.rd_kafka_destroy(client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _text(buffer: ctypes.Array[ctypes.c_char]) -> str:
    return buffer.value.decode(errors="replace")


def _librdkafka() -> ctypes.CDLL:
    """Open the librdkafka of the wheel, with the signatures of the functions used here.

    The extension module's own file is opened: symbols are looked up in its dependencies too, so
    the name under which a wheel hides its librdkafka does not matter.
    """
    path = _wheel.__file__
    handle, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    signatures: dict[str, tuple[type | None, list[type]]] = {
        "rd_kafka_conf_new": (handle, []),
        "rd_kafka_conf_set": (ctypes.c_int, [handle, text, text, text, size]),
        "rd_kafka_conf_set_log_cb": (None, [handle, handle]),
        "rd_kafka_conf_destroy": (None, [handle]),
        "rd_kafka_new": (handle, [ctypes.c_int, handle, text, size]),
        "rd_kafka_destroy": (None, [handle]),
        "rd_kafka_err2str": (text, [ctypes.c_int]),
        "rd_kafka_mock_cluster_new": (handle, [handle, ctypes.c_int]),
        "rd_kafka_mock_cluster_bootstraps": (text, [handle]),
        "rd_kafka_mock_cluster_destroy": (None, [handle]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [handle, ctypes.c_int32]),
        "rd_kafka_mock_topic_create": (ctypes.c_int, [handle, text, ctypes.c_int, ctypes.c_int]),
    }
    try:
        lib = ctypes.CDLL(path)
        for name, (result, arguments) in signatures.items():
            function = getattr(lib, name)
            function.restype = result
            function.argtypes = arguments
    except (OSError, AttributeError) as error:
        raise BrokerError(
            f"this build of confluent-kafka has no embedded broker ({error}): "
            "install its wheel, or use a real Kafka broker"
        ) from error
    return lib
