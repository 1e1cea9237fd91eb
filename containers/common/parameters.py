"""What a request may ask for: one table for each model, checked alike for HTTP, CSV and the command line."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TRUE = {"true", "yes", "on", "1"}
FALSE = {"false", "no", "off", "0"}


@dataclass(frozen=True)
class Parameter:
    """One thing that may be asked for.

    kind: int, float, bool or str; `list` is a list of floats.
    minimum, maximum: inclusive, for each number.
    default: what the README's table and --help say of it; None where the algorithm decides.
    nullable: null is a value of its own ("never"), not the same as leaving it out.
    """

    name: str
    kind: type
    meaning: str
    minimum: float = -math.inf
    maximum: float = math.inf
    choices: tuple[str, ...] = ()
    default: str = ""
    nullable: bool = False

    def parse(self, value: object) -> Any:  # noqa: ANN401 - of this parameter's own kind
        """`value` (from JSON, or text from a form, a CSV cell or a command line) as this parameter's kind.

        Raises ValueError with a sentence for the person who sent it.
        """
        if self.nullable and (value is None or str(value).lower() in ("null", "none", "never")):
            return None
        try:
            parsed = CONVERTERS[self.kind](value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                f"{self.name} must be {self.expected()}, not {shortened(value)}."
            ) from None
        for number in parsed if self.kind is list else [parsed]:
            if self.choices and number not in self.choices:
                raise ValueError(f"{self.name} must be {self.expected()}, not {shortened(value)}.")
            if self.kind in (int, float, list) and not self.minimum <= number <= self.maximum:
                raise ValueError(f"{self.name} must be {self.expected()}, not {shortened(value)}.")
        return parsed

    def expected(self) -> str:
        """What is accepted, as it ends the sentence "... must be"."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = {
            int: "a whole number",
            float: "a number",
            bool: "true or false",
            str: "text",
            list: "a list of numbers",
        }
        bounds = ""
        if math.isfinite(self.minimum) and math.isfinite(self.maximum):
            bounds = f" from {self.minimum:g} to {self.maximum:g}"
        elif math.isfinite(self.minimum):
            bounds = f" of at least {self.minimum:g}"
        return words[self.kind] + bounds + (" or null" if self.nullable else "")


def parse_parameters(
    parameters: Iterable[Parameter], given: Mapping[str, object]
) -> dict[str, Any]:
    """The parameters in `given`, checked; empty text and (unless it means something) null count as left out.

    Raises ValueError with a sentence for the person who sent it, also for a name that is none of `parameters`.
    """
    known = {parameter.name: parameter for parameter in parameters}
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise ValueError(
            f"There is no parameter {shortened(unknown[0])}. Known are: {', '.join(known)}."
        )
    parsed = {}
    for name, value in given.items():
        if value == "" or (value is None and not known[name].nullable):
            continue
        parsed[name] = known[name].parse(value)
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


def shortened(value: object) -> str:
    """`value` as it may stand in a message: quoted, and short however long it is."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
