"""An endpoint that nobody uses goes to zero instances, and wakes for the next request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from front_door import FrontDoor, running, wait_until
from kill_rounds import ModelServerProcess

IDLE_MINUTES = 0.03


def instances(door: FrontDoor) -> tuple[int, int]:
    """Return CurrentInstanceCount and DesiredInstanceCount, as boto3 tells them."""
    described: dict[str, Any] = door.control.describe_endpoint(EndpointName="lazy")
    variant = described["ProductionVariants"][0]
    return variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]


def test_an_idle_endpoint_goes_to_zero_and_the_next_request_wakes_it(tmp_path: Path) -> None:
    model_server = ModelServerProcess(tmp_path)
    model_server.start()
    try:
        with running(
            tmp_path, f"--endpoint=lazy={model_server.url}", f"--idle-minutes={IDLE_MINUTES}"
        ) as door:
            door.wait_until_serving("lazy")
            wait_until(lambda: instances(door) == (0, 0), 20, "it stays awake")
            # An endpoint at zero is in service, and takes requests.
            status = door.control.describe_endpoint(EndpointName="lazy")["EndpointStatus"]
            assert status == "InService"

            # Whoever runs the model server stops it meanwhile.
            model_server.kill()
            accepted = door.ask("lazy", {"good": "morning"})
            wait_until(lambda: instances(door)[1] == 1, 10, "it does not wake")
            model_server.start()
            assert door.answer(accepted) == ("output", b'{"good": "morning"}')
            wait_until(lambda: instances(door) == (0, 0), 20, "it does not sleep again")
    finally:
        model_server.kill()
