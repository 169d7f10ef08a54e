"""This service as `selftpt serve` runs it, with a tower that gives the same features for every image, without looking.
Everything else is done: limits, headers of images, admission, batches, scores, metrics, logs. Run by
`benchmarks.peers`."""

from __future__ import annotations

from dataclasses import replace

import torch
import uvicorn
from torch import Tensor

from adapters.clip import Backbone
from benchmarks.peers.model import Shape
from service.app import create_app
from service.commands.serve import AnnouncingServer
from service.compute.image_engine import settings_backbone
from service.process.allocator import keep_large_blocks
from service.settings import Settings


class Constant:
    def __init__(self, width: int) -> None:
        self._row_1D = torch.ones(1, width)

    def features(self, pixels_B3SS: Tensor, /) -> Tensor:
        return self._row_1D.expand(len(pixels_B3SS), -1)


def without_tower(backbone: Backbone) -> Backbone:
    return replace(backbone, image=backbone.image.run_by(Constant(backbone.embed_dim), "constant"))


def main() -> None:
    keep_large_blocks()
    settings = Settings(engine="torch")
    app = create_app(settings, backbone=without_tower(settings_backbone(settings)))
    port = Shape.from_environment().port
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False, server_header=False,
                            proxy_headers=False)  # fmt: skip
    AnnouncingServer(config, f"http://127.0.0.1:{port}", app.state.runtime.drain).run()


if __name__ == "__main__":
    main()
