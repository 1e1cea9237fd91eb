"""docs/contract.md says what the code does: each table is read and compared with both sides."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

import bot
from containers.common.errors import ErrorCode
from containers.common.parameters import Parameter
from containers.cyclegan import bucket, styles
from containers.cyclegan.parameters import BATCH_COLUMNS as CYCLEGAN_COLUMNS
from containers.cyclegan.parameters import PARAMETERS as CYCLEGAN_PARAMETERS
from containers.cyclegan.weights import OFFICIAL_STYLES
from containers.nst.options import Options, max_steps
from containers.nst.parameters import BATCH_COLUMNS as NST_COLUMNS
from containers.nst.parameters import PARAMETERS as NST_PARAMETERS
from containers.nst.service import service as nst_service
from containers.serving import about, catalog, limits, progress, storage
from containers.serving.control import Action
from containers.serving.errors import STATUS
from containers.serving.model import Facts, Service
from containers.serving.parsing import CatalogJob

ROOT = Path(__file__).parents[2]
CONTRACT = (ROOT / "docs" / "contract.md").read_text()
PARAMETERS = {"nst": NST_PARAMETERS, "cyclegan": CYCLEGAN_PARAMETERS}
URL_FIELDS = {
    "content_url",
    "style_url",
    "mask_url",
    "result_url",
    "lossless_url",
    "film_url",
    "progress_url",
    "control_url",
}

# SageMaker calls no other paths than those that exist, so the bot never sees these.
NEVER_FROM_INVOCATIONS = {ErrorCode.NOT_FOUND, ErrorCode.METHOD_NOT_ALLOWED}


def table(first_column: str, after: str = "") -> list[list[str]]:
    """Return the cells of a table, without backquotes. after: a heading before it."""
    text = CONTRACT.partition(after)[2] if after else CONTRACT
    rows: list[list[str]] = []
    found = False
    for line in text.splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        if line.startswith(f"| {first_column} |"):
            found = True
        elif found and not line.startswith("|"):
            break
        elif found and set(line) - set("|-"):
            rows.append(cells)
    assert rows, f"there is no table {first_column!r}"
    return rows


# --- the containers ---


@pytest.mark.parametrize("name", ["nst", "cyclegan"])
def test_parameters_are_those_of_the_code(name: str) -> None:
    written = table("parameter", after=f"### Parameters of {name}")
    real = [[p.name, p.default, p.range(), p.meaning] for p in PARAMETERS[name]]
    assert written == real


@pytest.mark.parametrize("parameter", NST_PARAMETERS, ids=lambda parameter: parameter.name)
def test_the_default_in_words_is_the_default_in_the_code(parameter: Parameter) -> None:
    default = getattr(Options(), parameter.name)
    if parameter.name == "max_epochs":
        assert Options().epochs() == 6
        assert Options(algorithm="gatys2015").epochs() == 14
    elif default is None and not parameter.nullable:
        assert not re.fullmatch(r"[\d.e-]+", parameter.default)
    else:
        assert parameter.parse(parameter.default) == default


def test_options_are_the_parameters() -> None:
    assert {field.name for field in fields(Options)} == {p.name for p in NST_PARAMETERS}


def test_csv_columns_are_those_of_the_code() -> None:
    rows = table("column")
    assert [row[0] for row in rows] == [str(number) for number in range(1, len(rows) + 1)]
    nst = [row[1] for row in rows if row[1]]
    cyclegan = [row[2] for row in rows if row[2]]
    assert nst == ["content_url", "style_url", "result_url", *NST_COLUMNS]
    assert cyclegan == ["content_url", "style_name", "result_url", *CYCLEGAN_COLUMNS]


def test_error_codes_and_statuses_are_those_of_the_code() -> None:
    written = {code: int(status) for code, status, _ in table("code")}
    assert written == {code.value: STATUS[code] for code in ErrorCode}


def test_limits_are_those_of_the_code() -> None:
    rows = table("limit")
    named = {name: int(value) for _, value, name in rows if name}
    service = Service("x", "", False, (), (), load=lambda: pytest.fail("not needed"))
    assert named == about.describe(service, [])["limits"]
    unnamed = [int(value) for _, value, name in rows if not name]
    assert unnamed == [
        limits.HEAD_SECONDS,
        limits.BODY_SECONDS,
        limits.MIN_BYTES_PER_SECOND >> 10,
        limits.SOURCES_SECONDS,
        storage.TRANSFER_SECONDS,
        bot.INVOCATION_SECONDS,
    ]
    sizes = {p.maximum for p in (*NST_PARAMETERS, *CYCLEGAN_PARAMETERS) if p.name == "size"}
    assert max(sizes) == limits.LONGEST_SIDE


def test_the_limits_of_nst_are_those_of_the_code() -> None:
    written = {name: int(value) for _, value, name in table("limit of nst")}
    assert written == about.describe(nst_service(), [])["model_limits"]
    sizes = re.findall(r"(\d+) at (\d+)x(\d+)", CONTRACT.partition("### Limits of nst")[2])
    assert len(sizes) == 2
    for steps, width, height in sizes:
        assert int(steps) == max_steps((int(width), int(height)))


def test_progress_and_facts_have_the_keys_that_are_written_down() -> None:
    keys = {key for cells in table("key", after="## The progress object") for key in names(cells)}
    assert keys == set(progress.ProgressState.__annotations__)
    facts = {fact for cells in table("fact") for fact in names(cells)}
    common = {"result_url", "size", "seconds", "server_started", "notes"}
    assert facts == common | set(Facts.__annotations__)


def test_the_actions_of_a_control_object_are_those_that_are_written_down() -> None:
    assert {cells[0] for cells in table("`action`")} == {action.value for action in Action}


def test_the_catalog_has_the_keys_that_are_written_down() -> None:
    keys = {key for cells in table("key of the catalog") for key in names(cells)}
    assert keys == set(catalog.Catalog.__annotations__)
    assert {cells[0] for cells in table("field of the request")} == {
        field.name for field in fields(CatalogJob)
    }
    assert f"At most {catalog.MAX_STYLES} are shown" in CONTRACT


def test_the_limits_of_a_bucket_of_styles_are_those_of_the_code() -> None:
    text = " ".join(CONTRACT.split())
    assert f"at most every {bucket.SECONDS_BETWEEN_LISTINGS:.0f} seconds" in text
    assert f"At most {bucket.MAX_LOADED} are kept in memory" in text
    assert f"the file has at most {limits.MAX_FILE_MEGABYTES} MB" in text
    assert f"differ by at most {styles.MAX_DIFFERENCE:.0f} of 255" in text


def names(cells: list[str]) -> list[str]:
    """Return the names in a table's first column, such as "step, steps"."""
    return cells[0].split(", ")


def test_environment_variables_are_those_that_the_code_reads() -> None:
    source = "".join(path.read_text() for path in (ROOT / "containers").rglob("*.py"))
    read = set(re.findall(r"(?:environ\.get|setting)\(['\"]([A-Z_0-9]+)", source))
    written = {name for cells in table("variable") for name in names(cells)}
    assert read <= written
    assert written - read == {"AWS_ENDPOINT_URL_S3", "..."}


# --- the bot ---


def test_the_bots_prefixes_are_those_that_are_written_down() -> None:
    keys = {key for cells in table("key", after="## The bot, S3") for key in names(cells)}
    prefixes = {bot.CHATS_PREFIX, bot.JOBS_PREFIX, bot.ASYNC_PREFIX, bot.RESULTS_PREFIX}
    prefixes |= {bot.OUTPUT_PREFIX, bot.FAILURE_PREFIX}
    assert {key for key in keys if key.endswith("/")} == prefixes


def test_the_bots_models_and_styles_are_the_containers() -> None:
    assert set(bot.MODELS) == set(PARAMETERS)
    assert set(bot.STYLES_SHOWN) == set(OFFICIAL_STYLES)


def test_the_bot_takes_no_larger_picture_than_the_containers() -> None:
    assert bot.MAX_PIXELS <= limits.MAX_MEGAPIXELS * 1_000_000
    assert bot.MIN_SIDE == limits.MIN_SIDE


def test_the_bot_knows_every_error_code() -> None:
    codes = {code.value for code in set(ErrorCode) - NEVER_FROM_INVOCATIONS}
    assert codes <= {code.value for code in bot.ErrorCode}


def test_the_containers_know_every_field_that_the_bot_sends() -> None:
    for field, *models in table("field", after="The bot sends these fields"):
        for name, sent in zip(("nst", "cyclegan"), models, strict=True):
            known = URL_FIELDS | {parameter.name for parameter in PARAMETERS[name]}
            if name == "cyclegan":
                known -= {"style_url", "mask_url"}
            assert not sent or field in known, f"{name} does not know {field}"


def test_the_fields_that_the_bot_sends_are_written_down() -> None:
    written = {cells[0] for cells in table("field", after="The bot sends these fields")}
    assert request_fields() - URL_FIELDS == written - URL_FIELDS


def request_fields() -> set[str]:
    """Return the fields that bot.py sets in the function that writes a model's request."""
    for function in ast.walk(ast.parse((ROOT / "bot.py").read_text())):
        if isinstance(function, ast.FunctionDef):
            keys = dictionary_keys(function)
            if "preserve_color" in keys:
                return keys
    raise AssertionError("bot.py sends no preserve_color")


def dictionary_keys(function: ast.FunctionDef) -> set[str]:
    """Return the text keys of dictionaries that the function makes or assigns to."""
    keys: list[ast.expr | None] = []
    for node in ast.walk(function):
        if isinstance(node, ast.Dict):
            keys += node.keys
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            keys.append(node.slice)
    found = set()
    for key in keys:
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            found.add(key.value)
    return found
