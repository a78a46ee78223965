"""The client asks for what it is told to, whatever is in an id."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from stream.cli import app
from stream.serving import AsyncClient, Client, ServiceError
from tests.serving.asking import NOW_MS, serving
from tests.serving.test_applicants import Holding, applicant
from tests.serving.test_scores import known

HOSTILE = [
    *(".", "..", "...", "../..", "a/../b", "a/./b", "/", "//", "a/", "/applicants", "%2e%2e", "%"),
    *(
        "a?b=c",
        "?",
        "#",
        "a#b",
        "a b",
        "+",
        "a&b",
        ";",
        "\\",
        "..\\..",
        "\t",
        "\n",
        "\x00",
        "é",
        "e\u0301",
    ),
    *("\u202e", "😀", "-", "--help", '"', "<b>", "*", "~", "http://x/", "a:b@c", "a" * 256),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Return the address of a service that holds an applicant of each id, and knows entities."""
    asked = Holding()
    asked.publish(*(applicant(each, NOW_MS, job=each, member=each) for each in HOSTILE))
    for number, each in enumerate(HOSTILE, 1):
        known(asked, "per_job", each, [float(number)], 0.5)
    with serving(asked) as url:
        yield url


def test_an_id_may_be_anything(url: str) -> None:
    """No part of it is taken for an address, by the client, what is between, or the service."""
    with Client(url) as client:
        for number, each in enumerate(HOSTILE, 1):
            (found,) = client.applicants(each).applicants
            assert (found.application_id, found.member_id) == (each, each)
            one = client.applicant(each, each)
            assert one is not None
            assert (one.job_id, one.application_id) == (each, each)
            entity = client.entity("per_job", each)
            assert entity is not None
            assert list(entity.coefficients.values()) == [number]
            assert each in [job.job_id for job in client.jobs(each, limit=100).jobs]


def test_without_waiting_too(url: str) -> None:
    """The other client asks in the same words."""

    async def ask() -> None:
        async with AsyncClient(url) as client:
            for each in HOSTILE:
                (found,) = (await client.applicants(each)).applicants
                assert found.application_id == each
                one = await client.applicant(each, each)
                assert one is not None
                assert (one.job_id, one.application_id) == (each, each)
                entity = await client.entity("per_job", each)
                assert entity is not None
                assert entity.entity_id == each

    asyncio.run(ask())


@pytest.mark.parametrize("job", [".", "..", "a/../b", "--help", "%2e%2e"])
def test_the_command_line_ranks_them(url: str, job: str) -> None:
    """As it does any others."""
    done = CliRunner().invoke(app, ["rank", "--url", url, "job", "--", job])
    assert done.exit_code == 0, done.output
    assert "1 of 1 open applicants" in done.output
    assert f" {job} " in done.output


def test_an_id_that_is_no_text_is_nobodys(url: str) -> None:
    """It is said in a line; nothing is asked for in its place."""
    with Client(url) as client, pytest.raises(ServiceError, match="not valid Unicode") as error:
        client.applicants("a\udcff")
    assert error.value.retry_after_s is None
