"""How many of what a cluster runs: the arguments of the Serve application, checked."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self


class Shape(BaseModel):
    """Given as `serve run service.cluster.app:application workers_max=8 worker_gpus=0.5`, or as `args` in a Serve
    configuration file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    front_ends_min: int = Field(1, ge=1)
    front_ends_max: int = Field(4, ge=1)
    front_end_cpus: float = Field(1.0, ge=0)
    front_end_requests: float = Field(
        64.0, gt=0, description="Requests under way per front end that autoscaling aims at"
    )
    workers_min: int = Field(1, ge=1)
    workers_max: int = Field(4, ge=1)
    worker_cpus: float = Field(1.0, ge=0)
    worker_gpus: float = Field(0.0, ge=0, description="May be a part of one, such as 0.25")
    worker_calls: float = Field(32.0, gt=0, description="Calls under way per worker that autoscaling aims at")
    upscale_seconds: float = Field(10.0, ge=0, description="So long more must be asked for before replicas are added")
    downscale_seconds: float = Field(300.0, ge=0)
    surge_percent: int = Field(
        0, ge=0, le=100, description="So many more replicas while running ones are replaced; 0 ends those first"
    )
    revision: str = Field("", description="Another value replaces the running replicas one after the other")

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for what in ("front_ends", "workers"):
            if getattr(self, f"{what}_min") > getattr(self, f"{what}_max"):
                raise ValueError(f"{what}_min cannot exceed {what}_max")
        return self

    def front_end_scaling(self) -> dict[str, Any]:
        return self._scaling(self.front_ends_min, self.front_ends_max, self.front_end_requests)

    def worker_scaling(self) -> dict[str, Any]:
        return self._scaling(self.workers_min, self.workers_max, self.worker_calls)

    def _scaling(self, fewest: int, most: int, target: float) -> dict[str, Any]:
        return {
            "min_replicas": fewest,
            "initial_replicas": fewest,
            "max_replicas": most,
            "target_ongoing_requests": target,
            "upscale_delay_s": self.upscale_seconds,
            "downscale_delay_s": self.downscale_seconds,
        }
