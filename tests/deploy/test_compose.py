"""docker-compose.yml and Dockerfile as data: no container engine is needed, none is asked.

Every command is parsed by the command line itself, every setting by the configuration's own reader;
addresses, ports, files and releases have to agree with what they are of.
"""

from __future__ import annotations

import re
import socket
import subprocess
import tomllib
from collections.abc import Sequence
from datetime import date
from functools import wraps
from http import HTTPStatus
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
import yaml
from packaging.version import Version
from prometheus_client import CollectorRegistry
from typer import Typer
from typer.testing import CliRunner

from deploy.compose import Service, in_order, services
from deploy.dashboards.board import SOURCE, file_name
from deploy.kafka import PROPERTIES
from stream import VERSION
from stream.cli import COMMANDS, load
from stream.configuration.load import load_config
from stream.console.server import Console, Probes
from stream.console.status import About
from stream.serving.access import Tokens, check_access
from stream.units import parse_speed, parse_time_ms

SERVICES = services()
OURS = {name: service for name, service in SERVICES.items() if service.is_ours}
LONG_RUNNING = ("kafka", "worker-1", "worker-2", "serve", "prometheus", "grafana")
WORKERS = ("worker-1", "worker-2")
DOCKERFILE = Path("Dockerfile").read_text(encoding="utf-8")


def record(given: Typer, copy: Typer, path: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    """Copy commands to another command line; the copies note what they are called with."""
    for command in given.registered_commands:
        function = command.callback
        assert function is not None
        name = command.name or function.__name__.replace("_", "-")

        def note(_path: str = f"{path} {name}", **options: Any) -> None:
            calls.append((_path, options))

        copy.command(name)(wraps(function)(note))
    copy.callback()(lambda: None)
    for group in given.registered_groups:
        assert group.typer_instance is not None
        inner = Typer()
        record(group.typer_instance, inner, f"{path} {group.name}", calls)
        copy.add_typer(inner, name=group.name)


def parsed(arguments: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Parse a command as ``hearback`` does, without running it; return its name and options."""
    calls: list[tuple[str, dict[str, Any]]] = []
    copy = Typer(add_completion=False)
    for name in COMMANDS:
        record(load(name), copy, "hearback", calls)
    done = CliRunner().invoke(copy, list(arguments))
    if done.exit_code != 0:
        raise ValueError(f"{' '.join(arguments)}: {done.output}")
    (call,) = calls
    return call


def settings(name: str) -> Any:
    """What a service's environment says, read as the product reads it."""
    return load_config(None, SERVICES[name].environment)


def test_a_wrong_command_would_be_noticed() -> None:
    """The parser of these tests refuses what the command line refuses."""
    for wrong in ("nonsense", "worker --brokers=x", "topics create --partitions=0", "topics"):
        with pytest.raises(ValueError, match="Usage"):
            parsed(wrong.split())


@pytest.mark.parametrize("name", OURS)
def test_every_command_parses(name: str) -> None:
    """The program is ours, and its command line takes the arguments."""
    program, *arguments = OURS[name].command
    assert program == "hearback"
    parsed(tuple(arguments))


@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_known_and_the_broker_is_reached(name: str) -> None:
    """The environment is read without complaint, and its broker is a listener of Kafka."""
    assert settings(name).broker in listeners("KAFKA_ADVERTISED_LISTENERS").values()


def test_the_commands_are_those_of_a_whole_market() -> None:
    """Simulate, train, create topics, work, play past and present, refresh, serve: on one log."""
    commands = {name: parsed(service.command[1:]) for name, service in OURS.items()}
    assert {name: path for name, (path, _) in commands.items()} == {
        "topics": "hearback topics create",
        "simulate": "hearback simulate",
        "train": "hearback train",
        "worker-1": "hearback worker",
        "worker-2": "hearback worker",
        "history": "hearback produce",
        "producer": "hearback produce",
        "refresh": "hearback model refresh",
        "serve": "hearback serve",
        "recruiters": "hearback browse",
    }
    options = {name: found for name, (_, found) in commands.items()}
    log = options["simulate"]["out"]
    for name in ("train", "history", "producer", "recruiters"):
        assert options[name]["logs"] == [log], name
    for name in (*WORKERS, "serve"):
        assert options[name]["model"] == options["train"]["out"], name
    assert options["refresh"]["first"] == options["train"]["out"]
    assert options["train"]["feature_names"] == log.with_name("log.truth.json")
    assert options["topics"]["partitions"] >= 2 * len(WORKERS)


def test_history_ends_where_training_and_the_live_market_meet() -> None:
    """What was trained on is played quickly, what follows is played live, nothing twice."""
    history, producer = (
        parsed(OURS["history"].command[1:])[1],
        parsed(OURS["producer"].command[1:])[1],
    )
    train = parsed(OURS["train"].command[1:])[1]
    assert history["until"] == producer["from_"] == train["until"]
    assert parsed(OURS["recruiters"].command[1:])[1]["until"] == train["until"]
    assert parse_speed(history["speed"]) > 60 * parse_speed(producer["speed"]) > 0
    simulated = parsed(OURS["simulate"].command[1:])[1]
    days = (parse_time_ms(train["until"]) - parse_time_ms(simulated["start"])) / 86_400_000
    assert 28 <= days <= simulated["days"] - 28  # two label windows to train on, two to play


def answers(path: str) -> bool:
    """Whether a worker's console has an answer to this path."""
    console = Console(
        CollectorRegistry(), Probes(), About("app", "1", "m"), host="127.0.0.1", port=0
    )
    console.start()
    try:
        return console.answer(path, "")[0] is not HTTPStatus.NOT_FOUND
    finally:
        console.stop()


def listeners(variable: str) -> dict[str, str]:
    """Kafka's listeners of one sort: name → address."""
    texts = SERVICES["kafka"].environment[variable].split(",")
    return dict(text.split("://") for text in texts)


def test_kafkas_listeners_fit_together() -> None:
    """The advertised ones are listened on; the one for this machine is published, on localhost."""
    bound = {
        name: address.rsplit(":", 1)[1] for name, address in listeners("KAFKA_LISTENERS").items()
    }
    told = listeners("KAFKA_ADVERTISED_LISTENERS")
    for name, address in told.items():
        assert address.rsplit(":", 1)[1] == bound[name]
    assert told["INSIDE"].startswith("kafka:")
    (port,) = SERVICES["kafka"].ports
    assert told["OUTSIDE"] == f"{port.host}:{port.outside}"
    assert str(port.inside) == bound["OUTSIDE"]
    environment = SERVICES["kafka"].environment
    assert environment["KAFKA_CONTROLLER_QUORUM_VOTERS"] == f"1@kafka:{bound['CONTROLLER']}"
    assert environment["KAFKA_LOG_DIRS"] in {mount.target for mount in SERVICES["kafka"].mounts}
    assert f"/dev/tcp/{told['INSIDE'].replace(':', '/')}" in SERVICES["kafka"].probe[-1]


def test_kafka_is_the_one_that_the_tests_run_on() -> None:
    """The image's release is that of the jars, and what one node needs is set in both."""
    pom = ET.parse("deploy/kafka-pom.xml").getroot()
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    assert (
        SERVICES["kafka"].image
        == f"apache/kafka:{pom.findtext('.//m:dependency/m:version', '', space)}"
    )
    environment = SERVICES["kafka"].environment
    set_here = dict(line.split("=", 1) for line in PROPERTIES.splitlines())
    for key in ("offsets.topic.replication.factor", "transaction.state.log.replication.factor",
                "transaction.state.log.min.isr", "auto.create.topics.enable"):  # fmt: skip
        assert environment[f"KAFKA_{key.upper().replace('.', '_')}"] == set_here[key], key


def test_prometheus_scrapes_workers_and_the_service_and_nothing_else() -> None:
    """Each target is where its environment puts the metrics, and the service knows the token."""
    config = yaml.safe_load(Path("deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    targets = {
        name: [target for group in job["static_configs"] for target in group["targets"]]
        for name, job in jobs.items()
    }
    assert targets == {
        "hearback": [f"{name}:{settings(name).console.port}" for name in WORKERS],
        "hearback-serve": [f"serve:{settings('serve').serving.port}"],
    }
    assert all("metrics_path" not in job for job in jobs.values())  # the default is ours
    assert answers("/metrics")
    token = jobs["hearback-serve"]["authorization"]["credentials_file"]
    source = f"./deploy/prometheus/{token}"
    read = [mount.source for mount in SERVICES["prometheus"].mounts]
    assert source in read
    for name in ("serve", "recruiters"):
        (mount,) = [one for one in SERVICES[name].mounts if one.source == source]
        assert parsed(OURS[name].command[1:])[1]["token_file"] == Path(mount.target), name
    Tokens(Path(source))  # it is taken


def test_the_service_is_asked_where_it_answers() -> None:
    """It listens for other containers, is published and probed on its port, and may do so."""
    serving = settings("serve").serving
    token_file = Path("deploy/prometheus/token")
    check_access(msgspec.structs.replace(serving, token_file=token_file))
    assert serving.host == "0.0.0.0"  # noqa: S104 - of the container
    assert [port.inside for port in SERVICES["serve"].ports] == [serving.port]
    assert f"http://127.0.0.1:{serving.port}/readyz" in SERVICES["serve"].probe[-1]
    assert parsed(OURS["recruiters"].command[1:])[1]["url"] == f"http://serve:{serving.port}"
    assert re.search(rf"^EXPOSE .*\b{serving.port}\b", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_is_asked_where_it_answers(name: str) -> None:
    """Its page listens for other containers, is published, and the probe asks a path it has."""
    console = settings(name).console
    assert console.host == "0.0.0.0"  # noqa: S104 - of the container
    assert [port.inside for port in SERVICES[name].ports] == [console.port]
    asked = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", SERVICES[name].probe[-1])
    assert asked is not None
    assert int(asked[1]) == console.port
    assert answers(asked[2])
    assert f"EXPOSE {console.port}" in DOCKERFILE


def test_each_worker_has_state_of_its_own_on_a_volume() -> None:
    """The data folder is a volume that no other service has; the model is there to read."""
    volumes = []
    for name in WORKERS:
        options = parsed(OURS[name].command[1:])[1]
        mounts = {mount.target: mount for mount in SERVICES[name].mounts}
        assert not mounts[str(options["data"])].read_only
        assert mounts[str(options["model"].parent)].read_only
        volumes.append(mounts[str(options["data"])].source)
    assert len(set(volumes)) == len(WORKERS)


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists(name: str) -> None:
    """Files are in the repository, and only to read; volumes are declared."""
    declared = yaml.safe_load(Path("docker-compose.yml").read_text(encoding="utf-8"))["volumes"]
    for mount in SERVICES[name].mounts:
        if mount.is_volume:
            assert mount.source in declared
        else:
            assert Path(mount.source).exists(), mount.source
            assert mount.read_only


def test_every_folder_that_a_command_names_is_mounted() -> None:
    """Nothing is written into a container's own file system."""
    for name, service in OURS.items():
        targets = [mount.target for mount in service.mounts]
        for value in parsed(service.command[1:])[1].values():
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, Path):
                    assert any(path.is_relative_to(target) for target in targets), (name, path)


def test_the_folders_of_volumes_belong_to_the_user_of_the_image() -> None:
    """A new volume takes its owner from the image: each folder of ours is made there."""
    made = re.search(r"install --directory --owner=(\d+) --group=(\d+) (.*)", DOCKERFILE)
    assert made is not None
    users = {service.raw["user"] for service in OURS.values()}
    assert users == {f"{made[1]}:{made[2]}"}
    targets = {
        mount.target for service in OURS.values() for mount in service.mounts if mount.is_volume
    }
    assert targets == set(made[3].split())
    assert f"USER {made[1]}:{made[2]}" in DOCKERFILE


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_localhost_only(name: str) -> None:
    """Nothing here asks for a password."""
    assert all(port.host == "127.0.0.1" for port in SERVICES[name].ports)


def test_no_port_is_published_twice() -> None:
    """Services do not get into each other's way."""
    ports = [port.outside for service in SERVICES.values() for port in service.ports]
    assert len(ports) == len(set(ports))


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_fenced_in(name: str) -> None:
    """A pinned image, a user who is not root, no rights, limits of memory and processors."""
    raw = SERVICES[name].raw
    assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", SERVICES[name].image)
    assert str(raw["user"]).split(":")[0] not in {"0", "root"}
    assert raw["cap_drop"] == ["ALL"]
    assert raw["security_opt"] == ["no-new-privileges:true"]
    limits = raw["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory"}
    assert set(raw["logging"]["options"]) == {"max-size", "max-file"}


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_what_runs_on_has_a_health_check_and_comes_back(name: str) -> None:
    """And keeps what it knows on a volume."""
    raw = SERVICES[name].raw
    assert raw["restart"] == "unless-stopped"
    assert {"test", "interval", "timeout", "retries", "start_period"} <= set(raw["healthcheck"])
    assert any(mount.is_volume and not mount.read_only for mount in SERVICES[name].mounts)


def test_what_is_waited_for_can_come() -> None:
    """Health is asked only of who has a check, an end only of who ends; nobody waits in a ring."""
    assert {service.name for service in in_order(SERVICES)} == set(SERVICES)
    for service in SERVICES.values():
        for other, condition in service.waits_for.items():
            if condition == "service_healthy":
                assert SERVICES[other].probe, (service.name, other)
            if condition == "service_completed_successfully":
                assert SERVICES[other].raw["restart"] == "no", (service.name, other)


def test_services_that_wait_for_each_other_are_noticed() -> None:
    """The order of such services does not exist."""
    ring = {
        one: Service(one, "", (), {}, (), (), {other: "service_started"}, (), {})
        for one, other in (("a", "b"), ("b", "a"))
    }
    with pytest.raises(ValueError, match="wait for each other"):
        list(in_order(ring))


def test_grafana_is_given_the_source_and_the_dashboards() -> None:
    """The provisioned data source is Prometheus's service; dashboards are where it looks."""
    provisioning = Path("deploy/grafana/provisioning")
    sources = yaml.safe_load((provisioning / "datasources/hearback.yml").read_text("utf-8"))
    (source,) = sources["datasources"]
    (port,) = SERVICES["prometheus"].ports
    assert (source["uid"], source["type"]) == (SOURCE.uid, SOURCE.type_val)
    assert source["url"] == f"http://prometheus:{port.inside}"
    config = yaml.safe_load(Path("deploy/prometheus/prometheus.yml").read_text("utf-8"))
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    boards = yaml.safe_load((provisioning / "dashboards/hearback.yml").read_text("utf-8"))
    mounts = {mount.target: mount.source for mount in SERVICES["grafana"].mounts}
    assert mounts["/etc/grafana/provisioning"] == f"./{provisioning}"
    assert mounts[boards["providers"][0]["options"]["path"]] == "./deploy/grafana/dashboards"
    home = SERVICES["grafana"].environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    from deploy.dashboards import ALL

    assert Path(home).name in {file_name(board) for board in ALL}


def test_prometheus_is_started_on_its_mounted_files() -> None:
    """Its options name the file and the volume that are mounted, the rules lie beside the file."""
    service = SERVICES["prometheus"]
    options = dict(argument.removeprefix("--").split("=", 1) for argument in service.command)
    mounts = {mount.target: mount.source for mount in service.mounts}
    assert mounts[options["config.file"]] == "./deploy/prometheus/prometheus.yml"
    assert options["storage.tsdb.path"] in mounts
    config = yaml.safe_load(Path("deploy/prometheus/prometheus.yml").read_text("utf-8"))
    for rules in config["rule_files"]:
        assert mounts[str(Path(options["config.file"]).with_name(rules))].endswith(rules)


def test_the_probe_of_kafka_asks_its_port_and_starts_no_jvm() -> None:
    """Exit code 0 where somebody listens, another one where nobody does."""
    program, *options, script = SERVICES["kafka"].probe[1:]
    assert program == "bash"
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        here = script.replace("kafka/19092", f"127.0.0.1/{listening.getsockname()[1]}")
        assert here != script
        command = [program, *options, here]
        assert subprocess.run(command, check=False).returncode == 0
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0


def test_the_dashboards_are_for_the_grafana_of_the_stack() -> None:
    """The builders' release is not newer than the image's: Grafana reads what is older."""
    groups = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["dependency-groups"]["dev"]
    (pinned,) = [one for one in groups if one.startswith("grafana-foundation-sdk")]
    built_for = Version(pinned.rsplit("!", 1)[1])
    assert built_for <= Version(SERVICES["grafana"].image.split(":")[1])


def test_no_image_is_of_a_release_whose_support_has_ended() -> None:
    """Who takes another minor release writes down here until when it gets fixes.

    prometheus.io/docs/introduction/release-cycle (LTS), grafana.com/docs (12.4 is the last minor
    release of 12), devguide.python.org/versions. Kafka's is the one of the tests (see above).
    """
    ends = {
        "prom/prometheus:v3.13": date(2027, 7, 31),
        "grafana/grafana:12.4": date(2027, 5, 24),
        "python:3.11": date(2027, 10, 31),
    }
    images = {one.image for name, one in SERVICES.items() if not one.is_ours and name != "kafka"}
    images |= set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    assert {re.sub(r"\.\d+(-.*)?$", "", image) for image in images} == set(ends)
    looked_up = date(2026, 11, 26)  # not today: a test must not begin to fail by the calendar
    assert all(end > looked_up for end in ends.values())


def test_the_image_is_of_this_release_and_built_once() -> None:
    """The tag is the package's version. One service builds it: several would race for the tag."""
    for service in OURS.values():
        assert service.image == f"hearback:{VERSION}"
        assert service.raw["pull_policy"] == "never"
    building = [name for name, service in SERVICES.items() if "build" in service.raw]
    assert building == ["topics"]
    assert SERVICES["topics"].raw["build"] == "."


def test_the_builder_gets_what_the_dockerfile_copies() -> None:
    """Everything is ignored but the sources that are copied, and they exist."""
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for source in line.split()
    }
    ignored = Path(".dockerignore").read_text("utf-8").splitlines()
    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {"constraints.txt"}
    assert copied == {*packages, *needed}
    assert all(Path(source).exists() for source in copied)


def test_the_last_stage_is_small_and_has_the_kernel() -> None:
    """Two stages from one pinned image; the kernel's folder comes along, owned by the user."""
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases[0])
    folder = re.search(r"NUMBA_CACHE_DIR=(\S+)", DOCKERFILE)
    assert folder is not None
    assert f"COPY --from=build --chown=10001:10001 {folder[1]} {folder[1]}" in DOCKERFILE
    from stream.updaters.newton import warm_up

    assert f"{warm_up.__module__} import {warm_up.__name__}" in DOCKERFILE
