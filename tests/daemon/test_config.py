"""config.toml: defaults, overrides, and every mistake named at once with its line and key."""

from pathlib import Path
from textwrap import dedent

import pytest

from daemon.config import DirectorySource, ZeroMQSource, load_configuration
from daemon.errors import ConfigurationError
from daemon.keys import ClientKeys, ServerKeys, make_keys
from daemon.readers import DEFAULT_LIMITS, ReadLimits

SHIPPED = Path(__file__).parents[2] / "config.toml"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def mistakes(config: Path, text: str, *, verify: bool = False, **environment: str) -> list[str]:
    config.write_text(dedent(text))
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(config, verify=verify, environment=environment)
    return str(caught.value).replace(f"{config}, ", "").splitlines()


def test_shipped_file_is_valid_and_shows_the_defaults() -> None:
    configuration = load_configuration(SHIPPED, environment={})
    source = configuration.sources[0]
    assert isinstance(source, DirectorySource)
    assert source.path == SHIPPED.parent / "incoming"
    assert (source.policy, source.model, source.pixel_size_angstrom) == ("lossless", "graphene", None)
    assert (source.series_pattern, source.series_timeout_seconds) == (None, 30)
    assert configuration.publish.files.directory == SHIPPED.parent / "results"
    assert configuration.limits.for_reading() == DEFAULT_LIMITS == ReadLimits(268_435_456, 8_589_934_592)
    text = SHIPPED.read_text(encoding="utf-8")
    for line in (
        'policy = "lossless"',
        'model = "graphene"',
        "series_timeout_seconds = 30",
        'backend = "auto"',
        'directory = "results"',
        "overlays = true",
        "frame_pixels = 268_435_456",
        "decompressed_bytes = 8_589_934_592",
    ):
        assert f"# {line}" in text


def test_empty_file_has_every_default(config: Path) -> None:
    config.write_text("")
    configuration = load_configuration(config, environment={})
    assert configuration.sources == []
    assert configuration.recognition.backend == "auto"
    assert configuration.publish.files.overlays is True
    assert configuration.publish.files.directory == config.parent / "results"


def test_every_mistake_is_named_at_once(config: Path) -> None:
    found = mistakes(
        config,
        """\
        [[sources]]
        name = "camera"
        type = "directory"
        polcy = "latest"            # misspelt
        policy = "sometimes"

        [[sources]]
        name = "camera"
        type = "dectris-v1"
        pixel_size_angstrom = -0.1

        [recognition]
        backend = 'cuda'
        [publish.zeromq]
        endpoint = "127.0.0.1:5600"
        [colours]
        """,
    )
    expected = [
        "line 1: sources[0].path: is required and missing.",
        "line 4: sources[0].polcy: there is no such key; known here: name, policy, average_frames,",
        "line 5: sources[0].policy: input should be 'lossless' or 'latest', not 'sometimes'.",
        "line 7: sources[1].endpoint: is required and missing.",
        "line 8: sources[1].name: another source is called 'camera' too; rename one.",
        "line 10: sources[1].pixel_size_angstrom: input should be greater than 0, not -0.1.",
        "line 13: recognition.backend: input should be 'auto', 'openvino' or 'onnxruntime', not 'cuda'.",
        "line 15: publish.zeromq.endpoint: is not an endpoint such as tcp://127.0.0.1:9999: '127.0.0.1:5600'.",
        "line 16: colours: there is no such key; known here: sources, limits, recognition, publish, ledger, retention,",
    ]
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


def test_verifying_looks_at_folders_and_models(config: Path) -> None:
    (config.parent / "results").write_text("a file in the way")
    found = mistakes(
        config,
        """\
        [[sources]]
        name = "camera"
        type = "directory"
        path = "nowhere"
        model = "unobtainium"
        """,
        verify=True,
    )
    assert found[0].startswith("whole file: publish.files.directory:") or "results is a file" in found[0]
    assert "line 4: sources[0].path: the folder" in found[1]
    assert "nowhere does not exist" in found[1]
    assert found[2].startswith("line 5: sources[0].model: There is no model 'unobtainium'")


def test_series_patterns_are_checked(config: Path) -> None:
    found = mistakes(
        config,
        """\
        [[sources]]
        name = "camera"
        type = "directory"
        path = "incoming"
        series_pattern = '(?P<series>.+)_(\\d+)'
        series_timeout_seconds = 0

        [[sources]]
        name = "other"
        type = "directory"
        path = "incoming"
        series_pattern = '(?P<series>.+'
        """,
    )
    assert found[0].startswith("line 5: sources[0].series_pattern: has no group named index; name both, as in")
    assert found[1].startswith("line 6: sources[0].series_timeout_seconds: input should be greater than 0")
    assert found[2].startswith("line 12: sources[1].series_pattern: is not a regular expression (")
    assert len(found) == 3


def test_a_model_for_series_loses_no_frames(config: Path, blob_triplet_model: Path) -> None:
    (config.parent / "incoming").mkdir()
    source = f'[[sources]]\nname = "camera"\ntype = "directory"\npath = "incoming"\nmodel = "{blob_triplet_model}"\n'
    config.write_text(source)
    assert load_configuration(config, verify=True, environment={}).sources[0].policy == "lossless"
    (mistake,) = mistakes(config, source + 'policy = "latest"\n', verify=True)
    assert mistake.startswith("line 5: sources[0].model:")
    assert 'none of which may be left out; set policy = "lossless", or choose' in mistake


CAMERA = """\
[[sources]]
name = "camera"
type = "dectris-stream2"
"""


def test_a_camera_on_the_network_needs_only_an_endpoint(config: Path) -> None:
    config.write_text(CAMERA + 'endpoint = "tcp://dcu.local:31001"\nspool = "spool"\n')
    (source,) = load_configuration(config, verify=True, environment={}).sources
    assert isinstance(source, ZeroMQSource)
    assert (source.socket, source.bind, source.policy) == ("pull", False, "lossless")
    assert source.spool == config.parent / "spool"


@pytest.mark.parametrize("type_line", ["", 'type = "dectris-v3"\n'])
def test_a_source_of_no_known_type_is_named_by_its_key(config: Path, type_line: str) -> None:
    (mistake,) = mistakes(config, f'[[sources]]\nname = "camera"\n{type_line}')
    if type_line:
        assert mistake.startswith("line 3: sources[0].type: input should be 'directory', 'array-1.0', 'dectris-v1' or ")
        assert mistake.endswith("not 'dectris-v3'.")
    else:
        assert mistake == "line 1: sources[0].type: is required and missing."


@pytest.mark.parametrize(
    "endpoint", ["dcu.local:31001", "tcp://dcu.local", "tcp://a b:1", "udp://127.0.0.1:1", "tcp://127.0.0.1:65536", "7"]
)
def test_what_is_no_endpoint_is_refused(config: Path, endpoint: str) -> None:
    (mistake,) = mistakes(config, CAMERA + f'endpoint = "{endpoint}"\n')
    assert mistake.startswith("line 4: sources[0].endpoint: ")


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "192.168.0.2", "eth0", "[::]"])
def test_binding_beyond_this_machine_is_asked_for_in_words(config: Path, host: str) -> None:
    camera = CAMERA + f'bind = true\nendpoint = "tcp://{host}:9999"\n'
    publishing = f'[publish.zeromq]\nendpoint = "tcp://{host}:5600"\n'
    found = mistakes(config, camera + publishing)
    assert len(found) == 2
    assert all("bind to 127.0.0.1, give secret_key and allowed_keys (see docs/keys.md)" in line for line in found)
    config.write_text(camera + "allow_insecure = true\n" + publishing + "allow_insecure = true\n")
    assert load_configuration(config, environment={}).publish.zeromq is not None


@pytest.fixture
def keys(config: Path) -> Path:
    for name in ("daemon", "laptop"):
        make_keys(config.parent / "keys", name)
    return config.parent / "keys"


def test_with_keys_a_socket_may_be_bound_anywhere(config: Path, keys: Path) -> None:
    ours = 'secret_key = "keys/daemon.key_secret"\nallowed_keys = "keys"\n'
    config.write_text(
        f'{CAMERA}bind = true\nendpoint = "tcp://*:9999"\n{ours}\n[publish.zeromq]\nendpoint = "tcp://*:5600"\n{ours}'
    )
    configuration = load_configuration(config, verify=True, environment={})
    (source,) = configuration.sources
    assert isinstance(source, ZeroMQSource)
    assert configuration.publish.zeromq
    assert source.keys == configuration.publish.zeromq.keys == ServerKeys(keys / "daemon.key_secret", keys)

    config.write_text(
        CAMERA + 'endpoint = "tcp://dcu:1"\nsecret_key = "keys/daemon.key_secret"\nserver_key = "keys/laptop.key"\n'
    )
    (source,) = load_configuration(config, verify=True, environment={}).sources
    assert isinstance(source, ZeroMQSource)
    assert source.keys == ClientKeys(keys / "daemon.key_secret", keys / "laptop.key")


@pytest.mark.parametrize(
    "settings",
    [
        'bind = true\nsecret_key = "keys/daemon.key_secret"',
        'bind = true\nallowed_keys = "keys"',
        'bind = true\nsecret_key = "keys/daemon.key_secret"\nserver_key = "keys/laptop.key"',
        'secret_key = "keys/daemon.key_secret"',
        'server_key = "keys/laptop.key"',
        'secret_key = "keys/daemon.key_secret"\nallowed_keys = "keys"',
    ],
)
def test_keys_go_together(config: Path, keys: Path, settings: str) -> None:
    (mistake,) = mistakes(config, f'{CAMERA}endpoint = "tcp://127.0.0.1:9999"\n{settings}\n', verify=True)
    assert mistake.startswith("line 1: sources[0]: Keys go together: who binds has a secret key and a folder of ")


def test_keys_that_cannot_be_used_are_named(config: Path, keys: Path) -> None:
    (keys / "daemon.key_secret").chmod(0o644)
    found = mistakes(
        config,
        """\
        [publish.zeromq]
        endpoint = "tcp://*:5600"
        secret_key = "keys/daemon.key_secret"
        allowed_keys = "nowhere"
        """,
        verify=True,
    )[1:]  # after the first, that there is no source
    assert len(found) == 2
    assert f"line 3: publish.zeromq.secret_key: {keys}/daemon.key_secret holds a secret key that others" in found[0]
    assert found[0].endswith(f"run `chmod 600 {keys}/daemon.key_secret`.")
    assert "line 4: publish.zeromq.allowed_keys:" in found[1]
    assert "nowhere is no folder; make it, and put the public keys (.key) into it." in found[1]


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:0", "tcp://[::1]:9999", "tcp://localhost:*", "ipc:///tmp/x"])
def test_binding_on_this_machine_is_allowed(config: Path, endpoint: str) -> None:
    config.write_text(CAMERA + f'bind = true\nendpoint = "{endpoint}"\n')
    assert len(load_configuration(config, environment={}).sources) == 1


def test_a_spool_is_for_lossless_sources(config: Path) -> None:
    (mistake,) = mistakes(config, CAMERA + 'endpoint = "tcp://x:1"\npolicy = "latest"\nspool = "spool"\n')
    assert mistake.startswith('line 6: sources[0].spool: keeps every frame, of which policy = "latest" gives most up')


def test_an_average_would_blend_a_focal_series(config: Path, blob_triplet_model: Path) -> None:
    source = CAMERA + f'endpoint = "tcp://x:1"\nmodel = "{blob_triplet_model}"\naverage_frames = 4\n'
    (mistake,) = mistakes(config, source, verify=True)
    assert "which an average would blend; set average_frames = 1" in mistake


def test_what_is_kept_and_what_is_told_has_keys_of_its_own(config: Path) -> None:
    config.write_text("[ledger]\nbytes = 5\n[retention]\nfree_bytes = 7\n[alerts]\nsignal_below = 0.5\n")
    configuration = load_configuration(config, environment={})
    assert configuration.ledger_path == config.parent / "results" / "ledger.sqlite"
    assert (configuration.ledger.bytes, configuration.retention.free_bytes) == (5, 7)
    assert (configuration.alerts.signal_below, configuration.alerts.lattice_seen) == (0.5, False)
    found = mistakes(config, "[ledger]\nage = 5\n[retention]\nage = 7\n[alerts]\nsignal = 0.5\n")
    assert [line.split(";")[0] for line in found] == [
        "line 2: ledger.age: there is no such key",
        "line 4: retention.age: there is no such key",
        "line 6: alerts.signal: there is no such key",
    ]


def test_nothing_to_run_is_a_mistake(config: Path) -> None:
    assert mistakes(config, "", verify=True) == [
        "whole file: sources: there is no source, so nothing to run; add a [[sources]] section."
    ]


def test_a_model_folder_is_taken_from_the_folder_of_the_file(config: Path, blob_model: Path) -> None:
    (config.parent / "incoming").mkdir()
    (config.parent / "models").symlink_to(blob_model.parent)
    config.write_text('sources = [{name = "camera", type = "directory", path = "incoming", model = "models/blobs"}]')
    source = load_configuration(config, verify=True, environment={}).sources[0]
    assert source.model == str(config.parent / "models" / "blobs")


def test_so_is_one_without_a_slash_wherever_the_daemon_is_started(
    config: Path, blob_model: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config.parent / "incoming").mkdir()
    (config.parent / "blobs").symlink_to(blob_model)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    config.write_text('sources = [{name = "camera", type = "directory", path = "incoming", model = "blobs"}]')
    source = load_configuration(config, verify=True, environment={}).sources[0]
    assert source.model == str(config.parent / "blobs")


def test_limits_are_whole_numbers_above_0(config: Path) -> None:
    (mistake,) = mistakes(config, "[limits]\nframe_pixels = 0\n")
    assert mistake.startswith("line 2: limits.frame_pixels: input should be greater than 0")


def test_the_mark_that_windows_editors_put_first_is_no_mistake(config: Path) -> None:
    config.write_text("[publish.files]\noverlays = false\n", encoding="utf-8-sig")
    assert load_configuration(config, environment={}).publish.files.overlays is False


def test_environment_overrides_any_key(config: Path) -> None:
    config.write_text('[[sources]]\nname = "camera"\ntype = "directory"\npath = "incoming"\n')
    environment = {
        "HRTEMD_PUBLISH__FILES__OVERLAYS": "false",
        "HRTEMD_PUBLISH__FILES__DIRECTORY": "/data/results",
        "HRTEMD_SOURCES__0__MODEL": "nanoparticle",
        "HRTEMD_SOURCES__0__PIXEL_SIZE_ANGSTROM": "0.12",
        "HRTEMD_SOURCES__1__NAME": "second",
        "HRTEMD_SOURCES__1__TYPE": "directory",
        "HRTEMD_SOURCES__1__PATH": "elsewhere",
        "HOME": "/root",
    }
    configuration = load_configuration(config, environment=environment)
    assert configuration.publish.files.overlays is False
    assert configuration.publish.files.directory == Path("/data/results")
    first, second = configuration.sources
    assert (first.model, first.pixel_size_angstrom) == ("nanoparticle", 0.12)
    assert isinstance(second, DirectorySource)
    assert second.path == config.parent / "elsewhere"


def test_mistakes_in_the_environment_are_named_by_variable(config: Path) -> None:
    environment = {"HRTEMD_RECOGNITION__BACKEND": "cuda", "HRTEMD_SORCES": "x", "HRTEMD_SOURCES__3__NAME": "x"}
    found = mistakes(config, "", **environment)
    assert found == [
        "environment variable HRTEMD_RECOGNITION__BACKEND: recognition.backend: "
        "input should be 'auto', 'openvino' or 'onnxruntime', not 'cuda'.",
        "environment variable HRTEMD_SORCES: sorces: "
        "there is no such key; known here: sources, limits, recognition, publish, ledger, retention, alerts.",
        "environment variable HRTEMD_SOURCES__3__NAME: sources[3].name: there is no such key to override.",
    ]


def test_text_that_is_not_toml_is_named_by_line(config: Path) -> None:
    assert "line 2" in mistakes(config, 'a = 1\nb = "open\n')[0]


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load_configuration(tmp_path / "missing.toml")


def test_patterns_that_can_never_match_are_named(config: Path) -> None:
    found = mistakes(
        config,
        """\
        [[sources]]
        name = "camera"
        type = "directory"
        path = "."
        include = ["session*/**/*.mrc", "/data/*.tif"]
        exclude = ["old\\\\\\\\*"]
        """,
    )
    assert found == [
        "line 5: sources[0].include[1]: '/data/*.tif' is empty or begins with '/'; patterns are paths below the "
        "source's folder, such as 'session*/**/*.mrc'.",
        "line 6: sources[0].exclude[0]: 'old\\\\\\\\*' has a backslash; folders are separated by '/' on every system.",
    ]


WITH_MODELS = """\
[[sources]]
name = "camera"
type = "array-1.0"
endpoint = "tcp://127.0.0.1:9999"
{settings}
[[sources.models]]
model = "{one}"
voltage_kv = [250, 320]
pixel_size_angstrom = [0.05, 0.3]

[[sources.models]]
model = "{other}"
voltage_kv = [60, 80]
"""


def test_models_are_tried_in_order_and_the_source_s_own_is_for_everything_else(config: Path) -> None:
    text = WITH_MODELS.format(settings="", one="nanoparticle", other="graphene")
    config.write_text(text)
    (source,) = load_configuration(config, verify=True, environment={}).sources
    assert (source.all_models, source.model) == (("nanoparticle", "graphene"), None)
    assert [str(choice.conditions) for choice in source.models] == [
        "voltage 250 to 320 kV, pixel size 0.05 to 0.3 Å",
        "voltage 60 to 80 kV",
    ]
    config.write_text(text.replace("\n\n", '\nmodel = "graphene"\n\n', 1))
    (source,) = load_configuration(config, verify=True, environment={"HRTEMD_SOURCES__0__MODEL": "graphene"}).sources
    assert (source.all_models, source.model) == (("nanoparticle", "graphene", "graphene"), "graphene")


def test_mistakes_in_models_are_named_by_line_and_key(config: Path) -> None:
    found = mistakes(
        config,
        """\
        [[sources]]
        name = "other"
        type = "array-1.0"
        endpoint = "tcp://127.0.0.1:1"
        [[sources.models]]
        model = "graphene"
        [[sources]]
        name = "camera"
        type = "array-1.0"
        endpoint = "tcp://127.0.0.1:9999"
        [[sources.models]]
        model = "unobtainium"
        voltage_kv = [300, 80]
        [[sources.models]]
        model = "graphene"
        voltage = [80, 300]
        [[sources.models]]
        pixel_size_angstrom = 0.1
        """,
        verify=True,
    )
    assert [line.split(";")[0] for line in found] == [
        "line 5: sources[0].models[0]: has no condition, so that nothing would be left for others",
        "line 12: sources[1].models[0].model: There is no model 'unobtainium': neither a shipped one "
        "(graphene, mos2-triplet, nanoparticle, nanoparticle-triplet) nor a folder with a manifest.json.",
        "line 13: sources[1].models[0].voltage_kv: gives the highest value, 300, before the lowest, 80",
        "line 16: sources[1].models[1].voltage: there is no such key",
        "line 17: sources[1].models[2].model: is required and missing.",
        "line 18: sources[1].models[2].pixel_size_angstrom: input should be a valid tuple, not 0.1.",
    ]


def test_a_source_has_models_for_single_frames_or_for_series_but_not_both(
    config: Path, blob_model: Path, blob_triplet_model: Path
) -> None:
    names = {"one": blob_model, "other": blob_triplet_model}
    (mistake,) = mistakes(config, WITH_MODELS.format(settings="", **names), verify=True)
    assert mistake.startswith(f"line 12: sources[0].models[1].model: '{blob_triplet_model}' takes focal series and ")
    assert mistake.endswith("use models of one kind, or another source.")

    both_series = {"one": blob_triplet_model, "other": blob_triplet_model}
    (mistake,) = mistakes(config, WITH_MODELS.format(settings='model = "graphene"', **both_series), verify=True)
    assert mistake.startswith("line 5: sources[0].model: 'graphene' takes single frames and ")
    (mistake,) = mistakes(config, WITH_MODELS.format(settings='policy = "latest"', **both_series), verify=True)
    assert mistake.startswith("line 7: sources[0].models[0].model: ")
    assert "none of which may be left out" in mistake
