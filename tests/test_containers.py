"""The container files, as far as they can be checked without an engine: they parse, and keep what docs/ promise."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from service.cluster.shape import Shape
from service.settings import PREFIX, Settings
from tests.needs import missing

DOCKER = Path(__file__).resolve().parents[1] / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


def test_both_targets_exist_and_the_last_is_the_cpu() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE)
    assert {"cpu", "cuda"} <= set(stages)
    assert stages[-1] == "cpu"


def test_every_stage_stands_on_an_image_or_an_earlier_stage() -> None:
    known: set[str] = set()
    for base, stage in re.findall(r"^FROM (\S+) AS (\S+)", DOCKERFILE, re.MULTILINE):
        assert base in known or ":" in base
        known.add(stage)
    assert set(re.findall(r"--from=(\S+)", DOCKERFILE)) <= known


def test_the_process_is_unprivileged_and_watched() -> None:
    assert re.search(r"^USER 10001$", DOCKERFILE, re.MULTILINE)
    assert "/readyz" in DOCKERFILE.split("HEALTHCHECK", 1)[1]


def test_what_is_copied_exists() -> None:
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)]
    assert copied
    assert all((DOCKER.parent / source).exists() for sources in copied for source in sources)


def test_variables_are_settings() -> None:
    used = set(re.findall(rf"{PREFIX}([A-Z_]+)", DOCKERFILE + str(COMPOSE)))
    assert used
    assert used <= {name.upper() for name in Settings.model_fields}


def test_the_service_waits_for_a_durable_valkey() -> None:
    service, valkey = COMPOSE["services"]["selftpt"], COMPOSE["services"]["valkey"]
    assert service["depends_on"] == {"valkey": {"condition": "service_healthy"}}
    assert "--appendonly" in valkey["command"]
    assert "healthcheck" in valkey


def tool(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        raise missing(f"no {name}: it comes with the dev extra")
    return found


def test_the_dockerfile_passes_hadolint() -> None:
    run = subprocess.run([tool("hadolint"), str(DOCKER / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")


def test_monitoring_is_part_of_the_composition() -> None:
    (included,) = COMPOSE["include"]
    monitoring = yaml.safe_load((DOCKER / included["path"]).read_text(encoding="utf-8"))
    assert {"prometheus", "grafana"} <= set(monitoring["services"])
    mounts = [mount.partition(":")[0] for one in monitoring["services"].values() for mount in one["volumes"]]
    assert all((DOCKER / mount).exists() for mount in mounts if mount.startswith("./"))


@pytest.mark.parametrize("name", ["selftpt", "valkey"])
def test_kubernetes_objects_fit_their_schemas(name: str) -> None:
    file = str(DOCKER / "kubernetes" / f"{name}.yaml")
    command = [tool("kubernetes-validate"), "--strict", "-k", "1.34", file]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


RAY_SERVICE = yaml.safe_load((DOCKER / "kubernetes" / "rayservice.yaml").read_text(encoding="utf-8"))
GROUP = {"rayStartParams", "template"}
WORKERS = GROUP | {"groupName", "minReplicas", "maxReplicas"}


def test_the_ray_service_runs_what_exists_in_a_shape_that_is_valid() -> None:
    (application,) = yaml.safe_load(RAY_SERVICE["spec"]["serveConfigV2"])["applications"]
    module, _, function = application["import_path"].partition(":")
    source = DOCKER.parent / (module.replace(".", "/") + ".py")
    assert f"def {function}(shape: Shape)" in source.read_text(encoding="utf-8")
    assert Shape.model_validate(application["args"]).worker_gpus == 0.5


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # Ray's own, at its import
def test_rays_own_schema_takes_the_serve_configuration() -> None:
    if importlib.util.find_spec("ray") is None:
        raise missing("Ray is not installed: pip install 'self-tpt-service[cluster]'")
    from ray.serve.schema import ServeDeploySchema

    found = ServeDeploySchema.model_validate(yaml.safe_load(RAY_SERVICE["spec"]["serveConfigV2"]))
    assert (found.http_options.port, found.applications[0].name) == (8000, "selftpt")


def test_the_ray_service_has_the_fields_of_the_operators_types() -> None:
    assert (RAY_SERVICE["apiVersion"], RAY_SERVICE["kind"]) == ("ray.io/v1", "RayService")
    assert RAY_SERVICE["spec"].keys() == {"serveConfigV2", "rayClusterConfig"}
    cluster = RAY_SERVICE["spec"]["rayClusterConfig"]
    assert cluster.keys() == {"enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"}
    for group, needed, more in [
        (cluster["headGroupSpec"], GROUP, {"serviceType", "headService", "enableIngress"}),
        *((group, WORKERS, {"replicas", "numOfHosts", "scaleStrategy"}) for group in cluster["workerGroupSpecs"]),
    ]:
        assert needed <= group.keys() <= needed | more
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_the_ray_services_pods_fit_the_schema_of_kubernetes(tmp_path: Path) -> None:
    cluster = RAY_SERVICE["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    about = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "group"}}
    file = tmp_path / "pods.yaml"
    file.write_text(yaml.safe_dump_all([{**about, "template": group["template"]} for group in groups]))
    command = [tool("kubernetes-validate"), "--strict", "-k", "1.34", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_variables_of_kubernetes_are_settings() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (DOCKER / "kubernetes").glob("*.yaml"))
    used = {name.rstrip("_") for name in re.findall(rf"{PREFIX}([A-Z_]+)", text)}
    assert used
    assert used <= {name.upper() for name in Settings.model_fields}


@pytest.mark.slow
def test_the_dockerfiles_steps_lead_to_a_healthy_service() -> None:
    run = subprocess.run([sys.executable, str(DOCKER / "dry_run.py")], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "healthy after" in run.stdout
