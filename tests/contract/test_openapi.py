"""GET /openapi.json says what the servers do: schemathesis derives requests from it, good and bad.

The servers have the real interfaces of both containers, and a stand-in for the painting.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from containers.cyclegan.parameters import PARAMETERS as CYCLEGAN_PARAMETERS
from containers.nst.parameters import PARAMETERS as NST_PARAMETERS
from tests.contract.test_contract import URL_FIELDS
from tests.fakes.openapi import photograph
from tests.fakes.servers import LOCAL, RecordingStore, Running, gunicorn

PARAMETERS = {"nst": NST_PARAMETERS, "cyclegan": CYCLEGAN_PARAMETERS}
ROOT = Path(__file__).parents[2]
EXAMPLES = 50


@pytest.fixture(scope="module", params=["nst", "cyclegan"])
def name(request: pytest.FixtureRequest) -> str:
    container: str = request.param
    return container


@pytest.fixture(scope="module")
def server(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    application = f"tests.fakes.model:{name}_interface()"
    with gunicorn(application, tmp_path_factory.mktemp(name), environment=LOCAL) as running:
        yield running


@pytest.fixture(scope="module")
def document(server: Running) -> dict[str, Any]:
    answer = requests.get(f"{server.url}/openapi.json", timeout=10)
    assert answer.headers["Content-Type"] == "application/json"
    described: dict[str, Any] = answer.json()
    return described


def test_servers_do_what_their_description_says(
    name: str, server: Running, document: dict[str, Any], store: RecordingStore, tmp_path: Path
) -> None:
    store.objects |= {"photo": photograph(), "note": b"no picture"}
    described = tmp_path / "openapi.json"
    described.write_text(json.dumps(with_addresses_of(store, document)))
    command = ["schemathesis", "run", str(described), "--url", server.url, "--no-color"]
    command += ["--phases", "examples,coverage,fuzzing", "--mode", "all"]
    # What a picture needs is more than a schema can say: positive data may be refused
    command += ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]
    command += ["--max-examples", str(EXAMPLES), "--generation-deterministic"]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.fakes.openapi"}
    environment["PYTHONPATH"] = str(ROOT)
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert server.ping().status_code == 200
    # Its addresses lead to pictures
    body = {"content_url": store.url("photo"), "result_url": store.url("result.png")}
    body |= {"style_url": store.url("photo")} if name == "nst" else {"style_name": "negative"}
    assert server.post(json=body).json()["size"] == [24, 18]


def with_addresses_of(store: RecordingStore, document: dict[str, Any]) -> dict[str, Any]:
    """Return the description with addresses of the store alone: no test may call a stranger."""
    described: dict[str, Any] = json.loads(json.dumps(document))
    schemas = described["components"]["schemas"]
    schemas["Source"] = {"enum": [store.url("photo"), store.url("note"), store.url("missing")]}
    schemas["Target"] = {"enum": [store.url("result.png"), store.url("forbidden")]}
    if "CatalogRequest" in schemas:
        catalog = {"enum": [store.url("models/catalog.json")]}
        schemas["CatalogRequest"]["properties"]["catalog_url"] = catalog
    return described


# --- what schemathesis cannot know ---


def test_the_fields_are_those_of_the_contract(name: str, document: dict[str, Any]) -> None:
    fields = set(document["components"]["schemas"]["Request"]["properties"])
    expected = URL_FIELDS | {parameter.name for parameter in PARAMETERS[name]}
    if name == "cyclegan":
        expected = (expected - {"style_url", "mask_url"}) | {"style"}
    assert fields == expected


@pytest.mark.parametrize("outside", [False, True])
def test_the_ranges_are_those_that_are_checked(
    name: str, server: Running, document: dict[str, Any], store: RecordingStore, outside: bool
) -> None:
    """Each end of each range is taken, and what lies beyond it is not."""
    store.objects["photo"] = photograph()
    required: dict[str, object] = {"content_url": store.url("photo")}
    if name == "nst":
        required["style_url"] = store.url("photo")
    properties = document["components"]["schemas"]["Request"]["properties"]
    checked = []
    for field, described in properties.items():
        for end, step in (("minimum", -1), ("maximum", 1)):
            limit = described.get("anyOf", [{}])[0].get(end)
            if limit is None:
                continue
            value = limit + step * max(1, abs(limit) / 100) if outside else limit
            answer = server.post(json={**required, field: value})
            assert answer.status_code == (400 if outside else 200), (field, value, answer.text)
            checked.append(field)
    assert {"size", "strength"} <= set(checked)
