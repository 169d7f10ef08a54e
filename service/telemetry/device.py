"""What the device thread tells of its work, turned into metrics and traces."""

from __future__ import annotations

from collections.abc import Sequence

from service.compute.engine import Timing
from service.compute.scoring import ImageJob
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import Tracing


class DeviceWatch:
    """Thread-safe as far as metrics and tracing are."""

    def __init__(self, metrics: Metrics, tracing: Tracing) -> None:
        self._size = metrics.batch_size
        self._forward = metrics.forward_seconds
        self._images = metrics.device_busy.labels("images")
        self._class_states = metrics.device_busy.labels("class_states")
        self._restarts = metrics.device_restarts
        self._tracing = tracing

    def batch(self, timing: Timing, jobs: Sequence[ImageJob]) -> object:
        self._size.observe(timing.size)
        if timing.forward:  # images whose features are known need none
            self._forward.observe(timing.forward)
        self._images.inc(timing.batch + timing.forward + timing.head)
        return self._tracing.batch(timing, [job.caller for job in jobs])

    def restarted(self) -> None:
        self._restarts.inc()

    def class_state(self, seconds: float) -> None:
        self._class_states.inc(seconds)
