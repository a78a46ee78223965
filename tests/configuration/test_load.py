"""The configuration: what stands above what, and what is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.configuration.load import load_config, renamed
from stream.configuration.render import EXAMPLE, example
from stream.configuration.sections import Config
from stream.configuration.settings import table, to_toml, variable_of
from stream.errors import ConfigError
from stream.policy import HOUR_MS, Policy

ROOT = Path(__file__).parents[2]


def values(config: Config) -> dict[str, str | None]:
    """Every setting that is in force, as it is written."""
    return {row.name: row.written for row in table(config)}


def shown(config: Config) -> str:
    """What ``hearback config show`` prints."""
    return to_toml(config, config.sources)


def written(folder: Path, text: str, name: str = "hearback.toml") -> Path:
    """Write a file."""
    path = folder / name
    path.write_text(text)
    return path


def test_without_anything_the_defaults_are_in_force() -> None:
    """They are those of the example file, and of the policy."""
    found = load_config(None, {})
    assert found.policy == Policy()
    assert values(found) == values(Config())
    assert found.sources == {}


def test_the_example_file_has_every_setting_and_its_default(tmp_path: Path) -> None:
    """``make docs`` has been run; read back, it is the defaults; each setting is explained."""
    assert (ROOT / EXAMPLE).read_text(encoding="utf-8") == example()
    found = load_config(ROOT / EXAMPLE, {})
    assert values(found) == values(Config())
    assert set(found.sources) | {
        row.name for row in table(found) if row.declared.example or row.declared.secret
    } == set(values(found))
    assert all(row.help for row in table(found))
    uncommented = example().replace("\n# broker", "\nbroker").replace("\n# model", "\nmodel")
    read = load_config(written(tmp_path, uncommented), {})
    assert read.broker == "kafka:9092"
    assert read.worker.model == Path("/var/lib/hearback/model")


def test_every_example_is_one() -> None:
    """What the example file shows, switched off, of a setting without a default can be read."""
    rows = [row for row in table(Config()) if row.written is None and not row.declared.secret]
    assert rows
    for row in rows:
        assert str(row.read(row.declared.example)) == row.declared.example


def test_the_environment_stands_above_the_file(tmp_path: Path) -> None:
    """And the policy file above the configuration file; each says where a value is from."""
    file = written(
        tmp_path,
        '[labels]\nwindow = "7d"\nmin_age = "1h"\n'
        "[console]\nport = 1\n[effects.per_job]\ncapacity = 5",
    )
    policy = written(tmp_path, '[labels]\nwindow = "8d"\norphan_ttl = "2d"', "policy.toml")
    environment = {
        "HEARBACK_CONSOLE_PORT": "2",
        "HEARBACK_LABELS_WINDOW": "9d",
        "HEARBACK_LABELS_JOB_CLOSED": "off",
        "HEARBACK_LABELS_NEUTRAL_ACTIONS": "note, ping",
        "HEARBACK_EFFECTS_PER_JOB_PRIOR_PRECISION": "0.5",
        "HEARBACK_CRASH_AT": "read elsewhere",
        "PATH": "/bin",
    }
    found = load_config(file, environment, policy)
    assert found.console.port == 2
    assert found.policy.labels.window_ms == 9 * 24 * HOUR_MS
    assert found.policy.labels.orphan_ttl_ms == 48 * HOUR_MS
    assert found.policy.labels.min_age_ms == HOUR_MS
    assert found.policy.labels.job_closed == "off"
    assert found.policy.labels.neutral_actions == {"note", "ping"}
    assert (
        found.policy.effects["per_job"].capacity,
        found.policy.effects["per_job"].prior_precision,
    ) == (5, 0.5)
    assert found.sources["labels.window"] == "HEARBACK_LABELS_WINDOW"
    assert found.sources["labels.orphan_ttl"] == str(policy)
    assert found.sources["labels.min_age"] == str(file)


def test_settings_that_depend_on_each_other_may_stand_apart(tmp_path: Path) -> None:
    """A shorter window in one file makes room for a shorter ``entity_ttl`` in the other."""
    file = written(tmp_path, '[labels]\nwindow = "7d"')
    policy = written(tmp_path, '[effects.per_job]\nentity_ttl = "30d"', "policy.toml")
    found = load_config(file, {}, policy)
    assert found.policy.effects["per_job"].entity_ttl_ms == 30 * 24 * HOUR_MS
    assert values(found)["effects.per_job.entity_ttl"] == '"30d"'
    with pytest.raises(ConfigError, match=r"entity_ttl must be at least 4 .*set by .*policy.toml"):
        load_config(None, {}, policy)


def test_every_setting_has_a_variable_of_its_own() -> None:
    """No two settings share one."""
    rows = table(Config())
    assert len({row.variable for row in rows}) == len({row.name for row in rows}) == len(rows) > 40
    assert variable_of("effects.per_job.capacity") == "HEARBACK_EFFECTS_PER_JOB_CAPACITY"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[labels]\nwindows = 1", r"\[labels\] unknown setting windows: did you mean window\?$"),
        (
            "[labels]\npositive_action = ['x']",
            r"\[labels\] unknown setting positive_action: did you mean positive_actions\?$",
        ),
        ("[log]\nfile = 'x'", r"\[log\] unknown setting file; there are level, format$"),
        ("[label]\nwindow = 1", r"no section \[label\]: did you mean \[labels\]\?$"),
        ("[x]\nwindow = 1", r"no section \[x\]; there are \[kafka\], \[worker\]"),
        ("labels = 1", r"must be a section, \[labels\]"),
        ("effects.per_job = 1", r"must be a section, \[effects.per_job\]"),
        (
            "[effects.per_team]\ncapacity = 1",
            r"no section \[effects.per_team\]: did you mean \[effects.per_\w+\]\?$",
        ),
        ("[labels]\nwindow = 14", r'\[labels\] window must be a duration such as "14d", not 14$'),
        (
            "[effects.per_job]\nhalf_life = 14",
            r'\[effects.per_job\] half_life must be a duration such as "14d", or "off", not 14$',
        ),
        ("[labels]\nwindow = 'off'", r'window must be a duration such as "14d", not "off"$'),
        ("[labels]\nneutral_actions = 'note'", "neutral_actions must be a list of names such as"),
        ("[labels]\nneutral_actions = [1]", "neutral_actions must be a list of names such as"),
        ("[labels]\njob_closed = 1", "job_closed must be one of off, full, not 1$"),
        ("[effects.per_job]\ncoupled = 1", "coupled must be true or false, not 1$"),
        ("[labels]\naging = 'on'", "aging must be a list of numbers such as"),
        ("[labels]\naging = [1.5]", r"\[labels\] aging has shares between 0 and 1"),
        ("[labels]\ndelay_curve = ['1d']", 'write "AGE:SHARE" such as "1d:0.35"'),
        ("[labels]\ndelay_curve = ['1d:nan', '14d:1']", r"\[labels\] delay_curve needs 1 to 64"),
        ("[labels]\ndelay_curve = ['1d:0.5', '24h:0.6', '14d:1']", "delay_curve needs 1 to 64"),
        ("[labels]\ndelay_curve = ['1d:0.5', '3d:1']", "ends at 3d, before the window of 14d: let"),
        (
            "[effects.per_job]\ncapacity = 'many'",
            r'\[effects.per_job\] capacity must be a whole number, not "many"$',
        ),
        ("[effects.per_job]\ncapacity = 1.5", "capacity must be a whole number, not 1.5$"),
        ("[effects.per_job]\ncapacity = '5'", "capacity must be a whole number"),
        ("[effects.per_job]\ncapacity = 0", r"\[effects.per_job\] capacity and open_limit must"),
        ("[gate]\nmargin = 2024-01-01", r"margin must be a number, not \"2024-01-01\"$"),
        ("[gate]\nmargin = nan", "margin must lie between"),
        ("[worker]\ndata = 5", r"\[worker\] data must be a path, not 5$"),
        ("[console]\nhost = 5", r"\[console\] host must be a string, not 5$"),
        ("[console]\nport = 'x'", r"\[console\] port must be a whole number"),
        ("[console]\nport = 70000", "between 0 and 65535"),
        (
            "[worker]\nidle_timeout = '5'",
            r'\[worker\] idle_timeout must be a duration such as "14d", not "5"$',
        ),
        ("[worker]\napplication_id = ''", "application_id is empty"),
        (
            "[kafka]\nsecurity = 'tls'",
            'must be one of plaintext, ssl, sasl_plaintext, sasl_ssl, not "tls"$',
        ),
        ("[kafka]\nsecurity = 'sasl_ssl'", "needs sasl_mechanism, username and a password"),
        ("[kafka]\nusername = 'x'", "set it to sasl_ssl"),
        ("[kafka]\npasword = 'hunter2'", "unknown setting pasword: did you mean password_file"),
        ("[kafka]\npassword = 'hunter2'", "a secret does not belong here: give HEARBACK_KAFKA"),
        ("[kafka]\nca_file = '/nowhere'", "certificates are given, but security is plaintext"),
        ("[kafka]\nsecurity = 'ssl'\nca_file = '/nowhere'", "there is no file /nowhere"),
        ("[kafka]\npassword_file = '/nowhere'", "/nowhere cannot be read"),
        ("[gate]\nmargin = 2", "margin must lie between"),
        ("[features]\nmax_feature = 0", r"max_feature must be above 0, and 1e\+38 at most"),
        ("[features]\nmax_feature = nan", "max_feature must be above 0"),
        ("[features]\nmax_feature = 1e39", "max_feature must be above 0"),
        ("[gate", "not TOML"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """In one line, which never shows a secret."""
    with pytest.raises(ConfigError, match=words) as refused:
        load_config(written(tmp_path, text), {})
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("HEARBACK_KAFKA_BROKERS", "x", r"no setting: did you mean HEARBACK_KAFKA_BROKER\?$"),
        ("HEARBACK_LOG_LEVELS", "x", r"no setting: did you mean HEARBACK_LOG_LEVEL\?$"),
        (
            "HEARBACK_EFFECTS_PER_TEAM_CAPACITY",
            "1",
            r"no setting: did you mean HEARBACK_EFFECTS_PER_",
        ),
        ("HEARBACK_NONSENSE", "1", r"^HEARBACK_NONSENSE is no setting: did you mean HEARBACK_"),
        ("HEARBACK_CONFG", "x", r"did you mean HEARBACK_CONFIG\?$"),
        ("HEARBACK_" + 80 * "Q", "1", r"Q is no setting; hearback config show lists them all$"),
        ("HEARBACK_PORT", "9464", "HEARBACK_PORT is no setting"),
        ("HEARBACK_WORKER_PORT", "9464", "HEARBACK_WORKER_PORT is no setting"),
        ("HEARBACK_KAFKA_PORT_9092", "x", "HEARBACK_KAFKA_PORT_9092 is no setting"),
        ("HEARBACK_LABELS_WINDOW", "14", r'\[labels\] window must be a duration such as "14d"'),
        ("HEARBACK_CONSOLE_PORT", "x", "port must be a whole number"),
        ("HEARBACK_CONSOLE_PORT", "70000", "between 0 and 65535 .set by HEARBACK_CONSOLE_PORT"),
        ("HEARBACK_GATE_MARGIN", "x", "margin must be a number"),
        ("HEARBACK_GATE_ENABLED", "maybe", "enabled must be true or false"),
        ("HEARBACK_LOG_LEVEL", "LOUD", "level must be one of DEBUG, INFO, WARNING, ERROR"),
    ],
)
def test_a_variable_that_cannot_be_is_refused(name: str, text: str, words: str) -> None:
    """By its name."""
    with pytest.raises(ConfigError, match=words) as refused:
        load_config(None, {name: text})
    assert name in str(refused.value)


def service_variables(service: str, port: int, name: str) -> dict[str, str]:
    """Return what Kubernetes sets for a service, as its documentation has it."""
    of = service.upper().replace("-", "_")
    at = f"{of}_PORT_{port}_TCP"
    return {
        f"{of}_SERVICE_HOST": "10.0.0.11",
        f"{of}_SERVICE_PORT": str(port),
        f"{of}_SERVICE_PORT_{name}": str(port),
        f"{of}_PORT": f"tcp://10.0.0.11:{port}",
        at: f"tcp://10.0.0.11:{port}",
        f"{at}_PROTO": "tcp",
        f"{at}_PORT": str(port),
        f"{at}_ADDR": "10.0.0.11",
    }


@pytest.mark.parametrize(
    "service", ["hearback", "hearback-worker", "hearback-kafka", "hearback-console", "hearback-x-1"]
)
def test_what_kubernetes_sets_for_services_is_no_matter(service: str) -> None:
    """Nothing of it is refused or taken for a setting, whatever a service of ours is called."""
    found = load_config(None, service_variables(service, 9464, "METRICS_2"))
    assert found == Config()


def test_a_variable_under_its_old_name_is_taken_and_said() -> None:
    """``HEARBACK_BROKER`` is ``[kafka] broker``, where the new name is not given as well."""
    said: list[str] = []
    found = load_config(None, renamed({"HEARBACK_BROKER": "a:1"}, said.append))
    assert found.kafka.broker == "a:1"
    assert said == ["HEARBACK_BROKER is called HEARBACK_KAFKA_BROKER now: rename it"]
    both = {"HEARBACK_BROKER": "a:1", "HEARBACK_KAFKA_BROKER": "b:1"}
    assert load_config(None, renamed(both, said.append)).kafka.broker == "b:1"


def test_secrets_come_from_the_environment_or_a_file_and_are_never_shown(tmp_path: Path) -> None:
    """The environment stands above the file; neither is in what is shown, nor in any repr."""
    secret = written(tmp_path, "s3cret-file\n", "password")
    ca = written(tmp_path, "-", "ca.pem")
    file = written(
        tmp_path,
        "[kafka]\nbroker = 'k:1'\nsecurity = 'sasl_ssl'\nsasl_mechanism = 'SCRAM-SHA-256'\n"
        f"username = 'u'\npassword_file = '{secret}'\nca_file = '{ca}'",
    )
    from_file = load_config(file, {})
    assert from_file.broker.security.password == secret.read_text().strip()
    environment = {"HEARBACK_KAFKA_PASSWORD": "s3cret-env"}
    found = load_config(file, environment)
    assert [found.broker.security.password] == list(environment.values())
    for each in (from_file, found):
        for text in (shown(each), repr(each), str(each), repr(each.broker.security)):
            assert "s3cret" not in text
    assert "# password: (secret), HEARBACK_KAFKA_PASSWORD" in shown(found)
    assert f'password_file = "{secret}"' in shown(found)
    again = load_config(written(tmp_path, shown(found), "again.toml"), {})
    assert again.broker.security.username == "u"


def test_text_files_are_read_as_editors_leave_them(tmp_path: Path) -> None:
    """A byte order mark and any line ends are no part of a configuration, policy or secret."""
    for end in ("\n", "\r\n", "\r"):
        secret = tmp_path / "password"
        secret.write_bytes(f"\ufeffs3cret-é{end}more".encode())
        ca = written(tmp_path, "-", "ca.pem")
        lines = [
            *("\ufeff[kafka]", "broker = 'k:1'", "security = 'sasl_ssl'", f"ca_file = '{ca}'"),
            *("sasl_mechanism = 'PLAIN'", "username = 'u'", f"password_file = '{secret}'"),
        ]
        file, policy = tmp_path / "hearback.toml", tmp_path / "policy.toml"
        file.write_bytes(end.join(lines).encode())
        policy.write_bytes(end.join(["\ufeff[labels]", "window = '5d'"]).encode())
        found = load_config(file, {}, policy)
        assert found.broker.security.password == secret.read_text("utf-8-sig").splitlines()[0]
        assert found.policy.labels.window_ms == 5 * 24 * HOUR_MS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_files_in_utf_16_are_named(tmp_path: Path, encoding: str) -> None:
    """A file in another Unicode encoding is refused with one line that says what to do."""
    file = tmp_path / "hearback.toml"
    file.write_bytes("[kafka]\nbroker = 'k:1'\n".encode(encoding))
    says = rf"hearback.toml: the file is {encoding[:6].upper()}: save it as UTF-8"
    with pytest.raises(ConfigError, match=says):
        load_config(file, {})
    with pytest.raises(ConfigError, match="save it as UTF-8"):
        load_config(written(tmp_path, f"[kafka]\npassword_file = '{file}'", "other.toml"), {})
    file.write_bytes("[kafka]\nbroker = 'é'\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"hearback.toml: not UTF-8"):
        load_config(file, {})
