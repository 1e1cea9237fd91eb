"""The limits of the contract. docs/contract.md lists them, and GET / tells them."""

# Of the body of one request. An upload in the body may hold several images.
MAX_BODY_MEGABYTES = 100

# Of one file that is read from a URL.
MAX_FILE_MEGABYTES = 64

# Of one image, checked before any pixel is decoded.
MAX_MEGAPIXELS = 40

# Of an image, on its shorter side, in pixels.
MIN_SIDE = 16

# Of a result, on its longer side, in pixels. Inputs are shrunk to it while they are decoded.
LONGEST_SIDE = 2048

# Requests that wait while another one is being worked on.
MAX_QUEUE = 8
