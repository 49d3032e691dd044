"""Numbers and statuses in the words of a report.

A `Number` here is the mapping of a results file: value, se, low, high, status.  One that was not released
never turns into a figure: it is shown by its status, so that a suppressed count cannot be read as a zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, hypot, isfinite, log10
from typing import Any, Final, Literal, TypeGuard

Number = Mapping[str, Any]
Kind = Literal["count", "estimate", "ratio", "share", "two decimals", "three decimals"]

Z95: Final = 1.959963984540054
MINUS: Final = "\N{MINUS SIGN}"
WIDE_RATIO: Final = 5.0  # of the ends of an interval; from here on each end has digits of its own
MISSING: Final = "not available"
UNCERTAIN: Final = "too uncertain to say"
DECIMALS: Final[Mapping[str, int]] = {"two decimals": 2, "three decimals": 3}
SUPERSCRIPTS: Final = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
STATUS_WORDS: Final[Mapping[str, str]] = {
    "released": "released",
    "below threshold": "below threshold (may be zero)",
    "refused": "refused",
    "failed": "failed",
    "offline": "offline",
    "too few": "too few for the noise",
}
ANALYSES: Final[Mapping[str, str]] = {
    "count": "Counts",
    "moments": "Means and standard deviations",
    "histogram": "Histogram",
    "quantiles": "Quantiles",
    "logistic": "Logistic regression",
    "additive": "Additive model",
    "linear": "Linear regression",
    "neural": "Neural network",
    "scores": "Evaluation of a model",
    "select": "Selection of a model",
    "recalibration": "Recalibration to each partner",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A number as it is printed: `main`, its interval, or in place of both a `status` in words."""

    main: str = ""
    interval: str = ""
    status: str = ""

    def __str__(self) -> str:
        if self.status:
            return self.status
        return f"{self.main} ({self.interval})" if self.interval else self.main


def is_number(thing: object) -> bool:
    return isinstance(thing, Mapping) and "value" in thing and "status" in thing


def is_released(number: Number | None) -> bool:
    """Whether there is a finite value to print."""
    return number is not None and number["status"] == "released" and usable(number["value"])


def has_interval(number: Number) -> bool:
    return is_released(number) and number.get("low") is not None and number.get("high") is not None


def usable(value: float | None) -> TypeGuard[float]:
    return value is not None and isfinite(value)


def status_words(status: str) -> str:
    return STATUS_WORDS.get(status, status)


def shown(number: Number | None, kind: Kind = "estimate") -> Shown:
    """A `Number` for print, with its 95 % interval; `share` is a fraction of one, printed as a percentage."""
    if number is None:
        return Shown(status=MISSING)
    if number["status"] != "released":
        return Shown(status=status_words(number["status"]))
    if not usable(number["value"]):
        return Shown(status=MISSING)
    if kind == "count":
        return _count(number)
    if kind == "share":
        return _estimate(number, 100.0, "%")
    if kind == "ratio" and has_interval(number) and number["high"] > WIDE_RATIO * number["low"]:
        return Shown(plain(number["value"]), f"{plain(number['low'])} to {plain(number['high'])}")
    return _estimate(number, 1.0, "", DECIMALS.get(kind))


def bounded(number: Number) -> float:
    """The value, moved to the end of its interval where noise carried it past what is possible (an AUROC above 1)."""
    value, low, high = float(number["value"]), number.get("low"), number.get("high")
    value = value if low is None else max(value, low)
    return value if high is None else min(value, high)


def _count(number: Number) -> Shown:
    value, low, high = round(bounded(number)), number.get("low"), number.get("high")
    interval = f"{whole(low)} to {whole(high)}" if usable(low) and usable(high) else ""
    return Shown("about 0" if value <= 0 else whole(value), interval)


def _estimate(number: Number, factor: float, unit: str, decimals: int | None = None) -> Shown:
    value, low, high = bounded(number) * factor, number.get("low"), number.get("high")
    if low is None or high is None or not (isfinite(low) and isfinite(high)):
        return Shown(fixed(value, decimals_for(value) if decimals is None else decimals) + unit)
    low, high = low * factor, high * factor
    if decimals is None:
        # Neither digits below the uncertainty, nor so few that the interval shrinks to a point.
        half = (high - low) / 2
        decimals = max(decimals_for(max(abs(value), half)), decimals_for(half, 1) if half else 0)
    interval = f"{fixed(low, decimals)} to {fixed(high, decimals)}{unit}"
    if unit and value < 0:
        return Shown(f"about 0{unit}", interval)
    about = "about " if value != number["value"] * factor else ""
    return Shown(f"{about}{fixed(value, decimals)}{unit}", interval)


def decimals_for(scale: float, digits: int = 3) -> int:
    """Decimals that leave `digits` significant digits in a number of this size."""
    if scale == 0 or not isfinite(scale):
        return digits - 1
    return max(0, digits - 1 - floor(log10(abs(scale))))


def fixed(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    if not text.strip("-0.,"):
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def whole(value: float | None) -> str:
    return MISSING if not usable(value) or value is None else fixed(round(value), 0)


def plain(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits, no trailing zeros, and a power of ten for what is tiny."""
    if value is None or not isfinite(value):
        return MISSING
    if value != 0 and abs(value) < 1e-4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".").replace("-", MINUS)
        power = "10" + str(int(exponent)).translate(SUPERSCRIPTS)
        return power if mantissa == "1" else f"{mantissa} \u00d7 {power}"
    text = fixed(value, decimals_for(value, digits))
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(value: float | None, digits: int = 3) -> str:
    return MISSING if value is None or not isfinite(value) else f"{plain(100 * value, digits)}%"


def p_value(value: float | None) -> str:
    if value is None or not isfinite(value):
        return MISSING
    return "< 0.001" if value < 0.001 else fixed(value, 3)


def humane(name: str) -> str:
    return name.replace("_", " ")


def quoted(text: str) -> str:
    return f"\u201c{text}\u201d"


def count_of(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listing(names: Sequence[str]) -> str:
    """'a, b and c'."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def total(numbers: Sequence[Number]) -> Number | None:
    """The sum of independently noised numbers with its interval; None when one of them was not released."""
    if not numbers or not all(is_released(number) for number in numbers):
        return None
    return _from_noise(sum(n["value"] for n in numbers), hypot(*(n["se"] or 0.0 for n in numbers)))


def share_of(part: Number, rest: Sequence[Number]) -> Number | None:
    """part / (part + rest) for independently noised counts, its interval by the delta method, noise alone.

    None when a count was not released, or the sum is too small beside its noise to divide by.
    """
    size, others = total([part, *rest]), total(rest)
    if size is None or not _stands_out(size):
        return None
    outside, outside_se = (others["value"], others["se"]) if others else (0.0, 0.0)
    spread = hypot(outside * (part["se"] or 0.0), part["value"] * outside_se) / size["value"] ** 2
    return _share(part["value"] / size["value"], spread)


def ratio_of(part: Number, whole_thing: Number) -> Number | None:
    """part / whole for two noised counts; None as in `share_of`.

    Their noise is taken as independent; where the whole contains the part, the interval is at worst too wide.
    """
    if not (is_released(part) and is_released(whole_thing)) or not _stands_out(whole_thing):
        return None
    share = part["value"] / whole_thing["value"]
    spread = hypot(part["se"] or 0.0, share * (whole_thing["se"] or 0.0))
    return _share(share, spread / whole_thing["value"])


def _stands_out(number: Number) -> bool:
    """Whether the delta method may divide by it: five standard errors from zero."""
    return bool(number["value"] > max(5.0 * (number["se"] or 0.0), 0.0))


def _share(value: float, se: float) -> Number:
    made = _from_noise(value, se)
    return {**made, "low": max(made["low"], 0.0), "high": min(made["high"], 1.0)}


def _from_noise(value: float, se: float) -> Number:
    return {"value": value, "se": se, "low": value - Z95 * se, "high": value + Z95 * se, "status": "released"}
