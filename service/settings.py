"""The only reader of the environment (prefix SELFTPT_). Read once, checked at start, frozen; parts get plain values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from typing_extensions import Self

from service.process.cores import compute_cores, usable_cores
from service.security.sites import is_loopback

PREFIX = "SELFTPT_"
OTLP = "opentelemetry.exporter.otlp.proto.http"
MIB = 1024 * 1024
REDIS_SCHEMES = (
    *(f"{tls}{kind}://" for kind in ("", "+sentinel", "+cluster") for tls in ("redis", "rediss")),
    "unix://",
)

Count = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=1024)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


def default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "self-tpt"


def otel_installed() -> bool:
    try:
        return find_spec("opentelemetry.sdk") is not None and find_spec(f"{OTLP}.trace_exporter") is not None
    except ModuleNotFoundError:  # not even the package above it
        return False


class Settings(BaseSettings):
    """Every knob, its default, and what is refused. `GET /v1/limits` lists the `max_*` fields."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text"] = "auto"
    traces_endpoint: str | None = Field(None, description="OTLP/HTTP address for traces; needs the `otel` extra")
    traces_sample: float = Field(1.0, ge=0, le=1, description="Part of the traces kept that begin here")

    data_dir: Path = Field(default_factory=default_data_dir)
    redis_url: SecretStr | None = None
    redis_prefix: str = Field("selftpt", pattern=r"^[A-Za-z0-9_.:-]{1,64}$")
    redis_timeout: Seconds = 0.25
    redis_ca_file: Path | None = Field(None, description="Authorities for TLS to Redis, in place of the system's")
    redis_cert_file: Path | None = Field(None, description="Certificate to show to Redis")
    redis_key_file: Path | None = None
    redis_sentinel_password: SecretStr | None = None
    lease_seconds: float = Field(5.0, ge=0.5, le=60, description="Until another takes over what a dead process adapted")
    state_ttl_seconds: int = Field(30 * 86400, ge=0, description="Unused class states are dropped then; 0 = never")
    memory_bytes: int = Field(256 * MIB, ge=0, description="Encoded states kept in front of the durable store")
    embedding_bytes: int = Field(64 * MIB, ge=0, description="Features of images seen before; 0 keeps none")
    share_embeddings: bool = Field(False, description="Keep them in Redis too")
    hot_bytes: Bytes = Field(512 * MIB, description="Decoded states kept ready for scoring")
    text_bytes: int = Field(128 * MIB, ge=0, description="Text features of classes kept for other label sets")
    preload: str | None = Field(None, description="Label sets to load before readiness: ids, names, files; with commas")

    api_keys_file: Path | None = Field(None, description="Who may do what; without it everybody may do everything")
    allow_anonymous: bool = Field(False, description="Listen beyond this machine although no keys are asked for")
    allowed_hosts: str | None = Field(None, description="Further names of this service on loopback, with commas")
    cors_origins: str | None = Field(None, description="Sites whose pages may use the API, with commas; * is any")
    trusted_proxies: str | None = Field(None, description="Addresses whose X-Forwarded-For is believed, with commas")
    image_urls: bool = Field(False, description="Fetch images that are given as https addresses")
    image_url_hosts: str | None = Field(None, description="The only hosts to fetch from, with commas")

    backbone: str = Field("bundled", min_length=1)
    source_prompts: Path | None = Field(None, description="Folder of source prompts, beside those that are shipped")
    device: str = Field("auto", min_length=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] = Field("auto", description="Runs the image tower")
    engine_precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    engine_seconds: float = Field(60.0, ge=0, le=3600, description="No engine is begun to be measured after so long")
    adapter: str = Field("auto", min_length=1, description="Method used where a request names none")
    threads: int = Field(0, ge=0, le=1024, description="Compute threads; 0 = one per usable physical core")
    decode_threads: int = Field(0, ge=0, le=1024, description="Image decoders; 0 = one per core")
    preprocess: Literal["fast", "exact"] = Field(
        "fast", description="`exact` is open_clip's own transform, bit for bit"
    )
    exif: Literal["ignore", "apply"] = Field("apply", description="`ignore` is what open_clip does with orientation")

    max_body_bytes: Bytes = 64 * MIB
    max_image_bytes: Bytes = 20 * MIB
    max_pixels: int = Field(40_000_000, ge=1, le=89_000_000, description="Pillow's own bomb guard ends the range")
    max_side_ratio: float = Field(100.0, ge=1)
    max_frames: Count = Field(1000, description="Frames of an animation, of which the first is looked at")
    max_images: Count = 64
    max_top_k: Count = 1000
    max_classes: Count = 10_000
    max_name_characters: Count = 512
    max_templates: Count = 256
    max_descriptions: Count = 32
    max_support_images: Count = Field(64, description="Support images of one class")
    max_support_total: Count = Field(4096, description="Support images of one label set")
    max_support_bytes: Bytes = Field(512 * MIB, description="Support images of one label set, as uploaded")
    max_caption_characters: Count = 2000
    max_fit_seconds: float = Field(1800.0, gt=0, le=86400, description="Longest deadline of a fit, and its default")
    max_adapt_seconds: float = Field(900.0, gt=0, description="Longer adaptations are not begun; zero-shot serves")
    max_evaluation_images: Count = 2000
    max_archive_bytes: Bytes = Field(512 * MIB, description="What a zip archive may unpack to")
    max_archive_ratio: float = Field(100.0, ge=1, description="Unpacked over packed size of one file in an archive")
    max_evaluations: Count = Field(4, description="Evaluations being worked on at once")
    max_wait_seconds: Seconds = 60.0
    max_url_seconds: Seconds = Field(10.0, description="Until an image is there that was given as an address")
    max_batch: int = Field(32, ge=1, le=4096)
    max_waiting: Count = Field(1024, description="Images waiting for the device before requests are refused")
    max_held_bytes: Bytes = Field(1024 * MIB, description="Request bodies held in memory at once")
    max_in_flight: Count = Field(512, description="Classify requests being worked on at once")
    max_adaptations: Count = Field(256, description="Label sets waiting for adaptation before uploads are refused")
    max_decoded_bytes: int = Field(512 * MIB, ge=MIB, description="Decoded pixels held at once while resizing")
    request_timeout: Seconds = 60.0
    evaluation_timeout: Seconds = Field(600.0, description="Until an evaluation is given up")
    shutdown_timeout: Seconds = 15.0
    keep_alive_timeout: int = Field(
        75, ge=1, le=3600, description="Until an idle connection is closed; longer than the balancer's in front"
    )

    @field_validator("redis_url")
    @classmethod
    def _known_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None
        if not value.get_secret_value().startswith(REDIS_SCHEMES):
            raise ValueError(f"must start with {', '.join(REDIS_SCHEMES[:-1])} or {REDIS_SCHEMES[-1]}")
        return value

    @field_validator("source_prompts")
    @classmethod
    def _a_folder(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_dir():
            raise ValueError(f"{value} is not a folder")
        return value

    @field_validator("traces_endpoint")
    @classmethod
    def _traces_can_be_made(cls, value: str | None) -> str | None:
        if not value:
            return None
        if not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://, as in http://localhost:4318/v1/traces")
        if not otel_installed():
            raise ValueError("traces need the otel extra: pip install 'self-tpt-service[otel]'")
        return value

    @field_validator("api_keys_file", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.share_embeddings and self.redis_url is None:
            raise ValueError("share_embeddings needs redis_url")
        if self.max_image_bytes > self.max_body_bytes:
            raise ValueError("max_image_bytes cannot exceed max_body_bytes")
        if self.max_images > self.max_waiting:
            raise ValueError("max_images cannot exceed max_waiting: such a request could never be admitted")
        if self.max_body_bytes > self.max_held_bytes:
            raise ValueError("max_body_bytes cannot exceed max_held_bytes")
        if 12 * self.max_pixels > self.max_decoded_bytes:
            raise ValueError("max_decoded_bytes must hold one image of max_pixels (12 bytes each)")
        if not (is_loopback(self.host) or self.api_keys_file or self.allow_anonymous):
            raise ValueError(
                f"host {self.host} can be reached by others, and no API keys are asked for: set SELFTPT_API_KEYS_FILE "
                "(`selftpt keys create` makes one), or say that this is meant: --insecure, SELFTPT_ALLOW_ANONYMOUS=true"
            )
        return self

    @property
    def compute_threads(self) -> int:
        return self.threads or compute_cores()

    @property
    def decoders(self) -> int:
        return self.decode_threads or usable_cores()

    @property
    def limits(self) -> dict[str, int | float]:
        """What a caller may run into, by the names that problem documents use."""
        return {name: getattr(self, name) for name in type(self).model_fields if name.startswith("max_")}


def listed(text: str | None) -> frozenset[str]:
    """What stands between commas."""
    return frozenset(part.strip() for part in (text or "").split(",") if part.strip())


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """SELFTPT_ variables that no setting reads: most likely typing errors, worth a warning at start."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {f"{PREFIX}URL", f"{PREFIX}API_KEY"}
    given = os.environ if environ is None else environ
    return sorted(name for name in given if name.startswith(PREFIX) and name not in known)
