"""Settings: a known list, from the environment, checked at start, silent about secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings, unknown_variables

NAMES = """
host port log_level log_format data_dir redis_url redis_prefix redis_timeout state_ttl_seconds memory_bytes hot_bytes
api_keys_file backbone device precision adapter threads decode_threads preprocess exif max_body_bytes max_image_bytes
max_pixels embedding_bytes share_embeddings
max_side_ratio max_images max_top_k max_classes max_name_characters max_templates max_descriptions max_wait_seconds
max_batch max_waiting max_held_bytes max_in_flight max_adaptations max_decoded_bytes request_timeout shutdown_timeout
keep_alive_timeout
max_support_images max_support_total max_support_bytes max_caption_characters max_fit_seconds max_evaluation_images
max_archive_bytes max_archive_ratio max_evaluations evaluation_timeout allow_anonymous allowed_hosts cors_origins
trusted_proxies image_urls image_url_hosts max_frames max_url_seconds
redis_ca_file redis_cert_file redis_key_file redis_sentinel_password lease_seconds engine engine_precision
engine_seconds traces_endpoint traces_sample source_prompts max_adapt_seconds preload text_bytes
"""


def test_a_new_setting_needs_a_reason() -> None:
    assert set(Settings.model_fields) == set(NAMES.split())


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SELFTPT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SELFTPT_MAX_IMAGES", "3")
    settings = Settings()
    assert (settings.data_dir, settings.max_images) == (tmp_path, 3)
    assert settings.limits["max_images"] == 3


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]  # that it is frozen is the claim


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_image_bytes": 1 << 30},
        {"max_images": 5000},
        {"max_decoded_bytes": 1 << 20},
        {"max_held_bytes": 2048},
        {"max_pixels": 10**9},
        {"redis_url": "http://example.org"},
        {"host": "0.0.0.0"},
        {"host": "::"},
        {"host": "example.org"},
        {"port": 70_000},
        {"precision": "int1"},
        {"max_imges": 3},
    ],
)
def test_what_is_unsafe_or_unknown_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    "meant", [{"host": "0.0.0.0", "allow_anonymous": True}, {"host": "::", "api_keys_file": "k"}, {"host": "127.0.0.2"}]
)
def test_listening_to_others_takes_keys_or_a_clear_word(meant: dict[str, object]) -> None:
    assert Settings(**meant).host == meant["host"]  # type: ignore[arg-type]  # checked by Settings itself


def test_secrets_do_not_show() -> None:
    settings = Settings(redis_url="redis://:hunter2@localhost")
    assert "hunter2" not in repr(settings) + settings.model_dump_json()


def test_misspelt_variables_are_noticed() -> None:
    assert unknown_variables({"SELFTPT_MAX_IMGES": "1", "SELFTPT_PORT": "1", "PATH": ""}) == ["SELFTPT_MAX_IMGES"]


def test_a_folder_of_source_prompts_must_be_there(tmp_path: Path) -> None:
    assert Settings(source_prompts=tmp_path).source_prompts == tmp_path
    with pytest.raises(ValidationError, match="missing is not a folder"):
        Settings(source_prompts=tmp_path / "missing")
