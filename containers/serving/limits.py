"""The limits of the contract. docs/contract.md lists them, and GET / tells some of them."""

BATCH_TYPES = ("text/csv", "application/jsonlines", "application/x-ndjson", "application/jsonl")

# --- requests ---

# Of the body of one request. An upload in the body may hold several images.
MAX_BODY_MEGABYTES = 100

# Of a body that is one JSON object. It holds addresses and numbers.
MAX_JSON_KILOBYTES = 256

# Of the body of a batch: what SageMaker sends at most, as /execution-parameters asks for.
MAX_BATCH_MEGABYTES = 6

# Of a batch. Each row takes seconds at least, and a call ends after an hour at most.
MAX_BATCH_ROWS = 1000

# Of one line of a batch.
MAX_LINE_KILOBYTES = 64

# Of the text of one field, such as a signed address.
MAX_FIELD_KILOBYTES = 8

# Of a form: its files and its fields.
MAX_FORM_PARTS = 100

# --- images ---

# Of one file that is read from a URL.
MAX_FILE_MEGABYTES = 64

# Of one image, checked before any pixel is decoded.
MAX_MEGAPIXELS = 40

# Of an image, on its shorter side, in pixels.
MIN_SIDE = 16

# Of a result, on its longer side, in pixels.
LONGEST_SIDE = 4096

# Inputs are shrunk to this longer side while they are decoded, unless a larger result is asked for.
INPUT_SIDE = 2048

# --- the server ---

# Requests that wait while another one is being worked on.
MAX_QUEUE = 8

# Requests whose images are being read from http:// and https:// addresses, before they have a place
# in the queue: the servers of such addresses may be slow.
MAX_FETCHING = 8

# Batches that are worked on. Each holds one place in the queue until its last row is done.
MAX_BATCHES = 2

# For reading all images of a request from their addresses.
SOURCES_SECONDS = 60.0

# In which the head of a connection's first request must have arrived.
HEAD_SECONDS = 15

# In which a body must have arrived.
BODY_SECONDS = 300

# That a body has to bring, that the client has to take of the answer, and that the server of an
# image has to send, on average.
MIN_BYTES_PER_SECOND = 16 << 10


def input_side(size: int | None) -> int:
    """Return to how many pixels on the longer side inputs are shrunk. size: of the result."""
    return max(INPUT_SIDE, size or 0)


def body_limit(mimetype: str) -> int:
    """Return how many bytes a body of this content type may have."""
    if mimetype == "application/json":
        return MAX_JSON_KILOBYTES << 10
    if mimetype in BATCH_TYPES:
        return MAX_BATCH_MEGABYTES << 20
    return MAX_BODY_MEGABYTES << 20
