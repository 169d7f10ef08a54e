"""Ways to run an image tower on a CPU: torch as the reference, OpenVINO and ONNX Runtime where they are installed, and
the choice between them by measurement. One interface, `base.ImageEngine`."""
