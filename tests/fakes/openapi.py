"""What schemathesis sends as files and batches: it loads this module by SCHEMATHESIS_HOOKS."""

import io
import json
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image

from containers.serving.limits import BATCH_TYPES


def photograph() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 18), "teal").save(buffer, "PNG")
    return buffer.getvalue()


# Half of the files can be read
schemathesis.openapi.format("binary", st.just(photograph()) | st.binary(max_size=100))


@schemathesis.serializer(*BATCH_TYPES)
def as_lines(context: schemathesis.SerializationContext, value: Any) -> bytes:  # noqa: ANN401
    rows = value if isinstance(value, list) else [value]
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return "\n".join(lines).encode(errors="replace")


@schemathesis.serializer("image/*")
def as_image(context: schemathesis.SerializationContext, value: Any) -> bytes:  # noqa: ANN401
    return value if isinstance(value, bytes) else json.dumps(value).encode()
