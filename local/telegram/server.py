"""HTTP: /bot<token>/ and /file/bot<token>/ for the bot, / and /chat/<user>/ for the page."""

from __future__ import annotations

import hmac
import logging
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request, send_file
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from local.telegram.button_pictures import add_pictures, picture_path, read_painters
from local.telegram.errors import ApiError, bad_request
from local.telegram.methods import BotMethods
from local.telegram.page_files import content_security_policy, read_page
from local.telegram.parameters import Parameters
from local.telegram.store import Content, Store, StoredFile, brief_message
from local.telegram.uploads import prepare_document, prepare_photo

UPLOAD_BYTES = 50 * 2**20
# The limit of all other parts of a form with an upload, and of their number.
FORM_BYTES = 4 * 2**20
FORM_PARTS = 100
ALBUM_LENGTH = 32
# So much of an upload that is too large is read before the error is sent.
DRAIN_BYTES = 2**30
POLL_SECONDS = 50
EXAMPLES = Path(__file__).parents[2] / "examples"
# A user id has at most 52 significant bits.
USER_PATH = "/chat/<int(min=1,max=4503599627370495):user>"

log = logging.getLogger("telegram")


def create_app(store: Store, token: str, key: str, port: int) -> Flask:
    """Return the WSGI application, which has to listen at `port`.

    The bot calls it with `token`, and the page with `key`.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = UPLOAD_BYTES + FORM_BYTES
    app.config["MAX_FORM_MEMORY_SIZE"] = FORM_BYTES
    app.config["MAX_FORM_PARTS"] = FORM_PARTS
    methods = BotMethods(store, token)
    page = read_page()
    headers = security_headers(page)

    @app.before_request
    def check_caller() -> None:
        refuse_other_sites(port)
        if request.path.startswith("/chat/") and not same(
            request.headers.get("X-Chat-Key", ""), key
        ):
            message = "Unauthorized: open the address that the program shows when it starts"
            raise ApiError(HTTPStatus.UNAUTHORIZED, message)

    @app.after_request
    def add_security_headers(response: Response) -> Response:
        response.headers.update(headers)
        return response

    @app.errorhandler(Exception)
    def answer_error(error: Exception) -> tuple[dict[str, Any], int]:
        if isinstance(error, RequestEntityTooLarge):
            error = drain_upload(error)
        api_error = to_api_error(error)
        body = {
            "ok": False,
            "error_code": api_error.code,
            "description": api_error.description,
        }
        if api_error.reason:
            body["reason"] = api_error.reason
        return body, api_error.code

    # ------------------------------------------------------------ for the bot

    @app.route("/bot<given_token>/<method_name>", methods=["GET", "POST"])
    def call_method(given_token: str, method_name: str) -> dict[str, Any]:
        check_token(given_token)
        method = methods.find(method_name)
        return {"ok": True, "result": method(Parameters(request))}

    @app.get("/file/bot<given_token>/<path:path>")
    def download_file(given_token: str, path: str) -> Response:
        check_token(given_token)
        return answer_file(store.find_file_by_path(path))

    def check_token(given_token: str) -> None:
        if not same(given_token, token):
            raise ApiError(HTTPStatus.UNAUTHORIZED, "Unauthorized")

    def answer_file(file: StoredFile | None) -> Response:
        """Answer a file as mere bytes: a browser must not run what a user has sent."""
        if not file:
            raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
        return send_file(store.files / file.file_id, mimetype="application/octet-stream")

    # ------------------------------------------------------------ for the page

    @app.get("/")
    def show_page() -> Response:
        return Response(page, mimetype="text/html")

    @app.post(f"{USER_PATH}/message")
    def send_message(user: int) -> dict[str, Any]:
        language = request.form.get("language_code", "")[:10]
        message = store.send_as_user(user, read_content(), language)
        return brief_message(message)

    @app.post(f"{USER_PATH}/press")
    def press_button(user: int) -> dict[str, Any]:
        parameters = Parameters(request)
        store.press_button(user, parameters.number("message_id"), parameters.text("data"))
        return {"ok": True}

    @app.get(f"{USER_PATH}/events")
    def read_events(user: int) -> Response:
        """Answer what is new after the change `after`, or wait `timeout` seconds for it."""
        parameters = Parameters(request)
        after = parameters.number("after")
        seconds = min(POLL_SECONDS, max(0, parameters.number("timeout")))
        events = store.wait_for(lambda: store.events(user, after), seconds)
        for event in events:
            add_pictures(event.get("message", {}), store.button_pictures)
        return jsonify(events)

    @app.get(f"{USER_PATH}/commands")
    def show_commands(user: int) -> Response:
        """Answer the bot's commands in the language, or else those of no language."""
        language = request.args.get("language_code", "")[:2]
        default = store.setting("commands:", [])
        return jsonify(store.setting(f"commands:{language}", default))

    @app.get(f"{USER_PATH}/file/<file_id>")
    def show_file(user: int, file_id: str) -> Response:
        """Answer a file that a message of this user's chat shows."""
        chats = [message["chat"]["id"] for message in store.messages_with_file(file_id)]
        if user not in chats:
            return answer_file(None)
        return answer_file(store.find_file(file_id))

    @app.get(f"{USER_PATH}/studio")
    def show_studio(user: int) -> dict[str, Any]:
        """Answer what a painting can be made of: the painters, and the names of the examples."""
        return {
            "painters": read_painters(store.button_pictures),
            "photos": example_names("photos"),
            "styles": example_names("styles"),
        }

    @app.get(f"{USER_PATH}/example/<any(photos, styles):kind>/<name>")
    def show_example(user: int, kind: str, name: str) -> Response:
        if name not in example_names(kind):
            return answer_file(None)
        return send_file(EXAMPLES / kind / f"{name}.jpg", mimetype="application/octet-stream")

    @app.get(f"{USER_PATH}/button-picture")
    def show_button_picture(user: int) -> Response:
        """Answer the picture of the buttons whose callback data is `data`."""
        path = picture_path(store.button_pictures, request.args.get("data", ""))
        try:
            return Response(path.read_bytes(), mimetype="application/octet-stream")
        except OSError:
            return answer_file(None)

    return app


def example_names(kind: str) -> list[str]:
    """Return the names of the example "photos" or "styles", without their suffix."""
    return sorted(path.stem for path in (EXAMPLES / kind).glob("*.jpg"))


def read_content() -> Content:
    """Return the message that the page sends: a photo, a document, or text. Raises ApiError."""
    parameters = Parameters(request)
    content = read_text_or_file(parameters)
    content.album = parameters.text("album")[:ALBUM_LENGTH]
    return content


def read_text_or_file(parameters: Parameters) -> Content:
    photo = parameters.files.get("photo")
    document = parameters.files.get("document")
    if photo:
        content = parameters.caption_content()
        content.kind = "photo"
        content.files = list(prepare_photo(photo, from_bot=False))
        return content
    if document:
        content = parameters.caption_content()
        content.kind = "document"
        content.files = list(prepare_document(document))
        return content
    return parameters.text_content()


def refuse_other_sites(port: int) -> None:
    """Raise ApiError where a page of another site calls.

    It may come by a host name that leads to this machine, by script, or by a form or a picture.
    """
    hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
    own_origin = request.host_url.removesuffix("/")
    origin = request.headers.get("Origin", own_origin)
    site = request.headers.get("Sec-Fetch-Site", "same-origin")

    is_allowed = request.host in hosts and origin == own_origin
    # A link on another site may lead to the page itself, which has no secret in it.
    if request.path != "/" and site not in ("same-origin", "none"):
        is_allowed = False
    if not is_allowed:
        message = "Forbidden: this server talks to its own page only"
        raise ApiError(HTTPStatus.FORBIDDEN, message)


def same(given: str, secret: str) -> bool:
    """Compare in a time that tells nothing about the secret."""
    return hmac.compare_digest(given.encode(), secret.encode())


def to_api_error(error: Exception) -> ApiError:
    """Return what the caller is told."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        return ApiError(error.code or 500, error.name)
    # No traceback: it could show the token, which is in every address.
    log.error("%s: %s", request.endpoint, type(error).__name__)
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error")


def drain_upload(error: RequestEntityTooLarge) -> Exception:
    """Read what is too large: a client that still sends would not read the answer.

    Return what to tell the client.
    """
    if (request.content_length or 0) <= UPLOAD_BYTES + FORM_BYTES:
        # A form whose reading was given up. Its stream knows how much of it is left.
        request.stream.exhaust()  # type: ignore[attr-defined]
        return bad_request(f"a form may have {FORM_PARTS} parts, and {FORM_BYTES} bytes of text")
    left = min(request.content_length or 0, DRAIN_BYTES)
    while left > 0:
        chunk = request.environ["wsgi.input"].read(min(left, 2**20))
        if not chunk:
            break
        left -= len(chunk)
    return error


def security_headers(page: str) -> dict[str, str]:
    return {
        "Content-Security-Policy": content_security_policy(page),
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
