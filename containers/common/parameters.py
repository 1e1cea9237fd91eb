"""A model's parameters: one table, with the same checks for HTTP, CSV and the command line."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from containers.common.errors import InvalidParameterError

TRUE = {"true", "yes", "on", "1"}
FALSE = {"false", "no", "off", "0"}
NULL = {"null", "none", "never"}

TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list of numbers",
}

# {parameter's name: value of the parameter's kind}. Only parse_parameters makes these, so every
# value is valid.
ParameterValues = dict[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a model.

    kind: int, float, bool or str; `list` means a list of floats.
    minimum, maximum: inclusive; they hold for each number of a list.
    default: how --help and docs/contract.md describe the value that is used if none is given.
    nullable: null is a valid value, different from leaving the parameter out.
    """

    name: str
    kind: type
    meaning: str
    minimum: float = -math.inf
    maximum: float = math.inf
    choices: tuple[str, ...] = ()
    default: str = ""
    nullable: bool = False

    def parse(self, value: object) -> Any:  # noqa: ANN401 - the parameter's own kind
        """Convert `value` to this parameter's kind and check it.

        It comes from JSON, or it is the text of a form, a CSV cell or a command line.
        Raises InvalidParameterError with a sentence for the user.
        """
        if self.nullable and (value is None or str(value).lower() in NULL):
            return None
        try:
            parsed = CONVERTERS[self.kind](value)
        except (TypeError, ValueError, OverflowError):
            raise self.error(value) from None
        if not self.allows(parsed):
            raise self.error(value)
        return parsed

    def allows(self, parsed: Any) -> bool:  # noqa: ANN401 - the parameter's own kind
        """Return whether a converted value is one of the choices and in the range."""
        if self.choices:
            return parsed in self.choices
        if self.kind is list:
            return all(self.minimum <= number <= self.maximum for number in parsed)
        if self.kind in (int, float):
            return bool(self.minimum <= parsed <= self.maximum)
        return True

    def error(self, value: object) -> InvalidParameterError:
        message = f"{self.name} must be {self.expected()}, not {shorten(value)}."
        return InvalidParameterError(message)

    def expected(self) -> str:
        """Return the allowed values as the end of the sentence "... must be"."""
        if self.choices:
            return "one of " + ", ".join(self.choices)

        text = TYPE_NAMES[self.kind]
        if math.isfinite(self.minimum) and math.isfinite(self.maximum):
            text += f" from {format_number(self.minimum)} to {format_number(self.maximum)}"
        elif math.isfinite(self.minimum):
            text += f" of at least {format_number(self.minimum)}"
        if self.nullable:
            text += " or null"
        return text

    def range(self) -> str:
        """Return the allowed values as docs/contract.md and GET / show them, like "16..2048"."""
        if self.choices:
            return " or ".join(self.choices)
        if not (math.isfinite(self.minimum) and math.isfinite(self.maximum)):
            return TYPE_NAMES[self.kind]
        text = f"{format_number(self.minimum)}..{format_number(self.maximum)}"
        if self.nullable:
            text += " or null"
        return text


def parse_parameters(
    parameters: Iterable[Parameter], given: Mapping[str, object]
) -> ParameterValues:
    """Check the parameters in `given` and return their values.

    Empty text counts as not given, and so does null, unless the parameter is nullable.
    Raises InvalidParameterError with a sentence for the user, also for a name that is not in
    `parameters`.
    """
    known = {parameter.name: parameter for parameter in parameters}
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise InvalidParameterError(
            f"There is no parameter {shorten(unknown[0])}. Known are: {', '.join(known)}."
        )

    parsed = {}
    for name, value in given.items():
        parameter = known[name]
        if value == "" or (value is None and not parameter.nullable):
            continue
        parsed[name] = parameter.parse(value)
    return parsed


def to_int(value: object) -> int:
    number = to_float(value)
    if number != int(number):
        raise ValueError
    return int(number)


def to_float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def to_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in TRUE | FALSE:
        raise ValueError
    return text in TRUE


def to_str(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value.strip()


def to_floats(value: object) -> list[float]:
    """Convert a list, or text with commas. At least one number must be other than 0."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not items:
        raise TypeError
    numbers = [to_float(item) for item in items]
    if not any(numbers):
        raise ValueError
    return numbers


CONVERTERS: dict[type, Callable[[object], Any]] = {
    int: to_int,
    float: to_float,
    bool: to_bool,
    str: to_str,
    list: to_floats,
}


def format_number(number: float) -> str:
    """Return a number in few characters, without loss: 1e-5, 1e12, 2048, 2147483647."""
    text = f"{number:g}"
    if float(text) != number:
        text = repr(number)
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def shorten(value: object) -> str:
    """Return `value` quoted for a message, cut off after 60 characters."""
    text = repr(value)
    if len(text) > 60:
        return text[:57] + "..."
    return text
