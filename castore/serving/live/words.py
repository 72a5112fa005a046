"""What a look says, in words and numbers, slot by slot, for the page and for the script that renews it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from castore.drawing.words import DETAIL, STATE, Letters, shown, width
from castore.metrics.model import gauge_words
from castore.serving.live.watch import SAMPLES, Condition, InstanceView, Look
from castore.text import count_text, size_text

WIDTH: Final = 184
"""How wide the words and the curve on a card are at least, in px."""

_ERRORS: Final = 60
"""How much of that the number of errors takes."""

CURVE: Final = 22
"""How high the curve is."""

NUMBERS: Final = ("calls", "hits", "misses", "bytes_in", "bytes_out", "under_way")


def clock_text(at: float) -> str:
    """Return a time of the day."""
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S} UTC"


def document(look: Look, key: str) -> dict[str, Any]:
    """Return all that changes on the page, as JSON has it.

    `texts` are by slot, `exact` the numbers that some of them stand for; the others are by the number of the
    instance. *key* changes when the page has to be loaded anew.
    """
    found: dict[str, Any] = {
        "key": key,
        "at": clock_text(look.at),
        "headline": headline(look),
        "overall": overall(look),
        "soon": look.undecided,
        "texts": {},
        "exact": {},
        "states": {},
        "fills": {},
        "curves": {},
    }
    for number, reading in enumerate(look.readings.values()):
        for slot, text in texts(reading).items():
            found["texts"][f"{number}.{slot}"] = text
        for slot in NUMBERS:
            found["exact"][f"{number}.{slot}"] = getattr(reading.metrics, slot)
        found["exact"][f"{number}.errors"] = sum(reading.metrics.errors.values())
        found["states"][number] = reading.health.condition
        found["fills"][number] = reading.fill
        found["curves"][number] = curve(reading.traffic)
    return found


def headline(look: Look) -> str:
    """Return the whole in a few words."""
    conditions = [reading.health.condition for reading in look.readings.values()]
    dead, heed = conditions.count("dead"), conditions.count("heed")
    parts = [f"{dead} unavailable"] * bool(dead) + [f"{heed} to be looked at"] * bool(heed)
    return ", ".join(parts) if parts else "all is well"


def overall(look: Look) -> Condition:
    """Return the worst that there is."""
    conditions = {reading.health.condition for reading in look.readings.values()}
    return "dead" if "dead" in conditions else "heed" if "heed" in conditions else "well"


def texts(reading: InstanceView) -> Mapping[str, str]:
    """Return the words of each slot of an instance."""
    metrics, rates = reading.metrics, reading.rates
    errors = {kind: count for kind, count in metrics.errors.items() if count}
    total = sum(errors.values())
    words = gauge_texts(metrics.gauges)
    if reading.fill is not None:
        words.insert(0, f"{share_text(reading.fill)} full")
    now = [count_text(metrics.under_way, "call") + " under way"] * bool(metrics.under_way)
    # What is always there, such as that a breaker is closed, is no news on a card.
    flags = {name.removeprefix("is_").replace("_", " ") for name in metrics.gauges if name.startswith("is_")}
    told = [word for word in words if reading.health.condition != "well" or word not in flags]
    quiet = total > 0 and reading.health.condition == "well"  # Else its state tells of them.
    return {
        "card.state": _cut(shown(reading.health.words), WIDTH - 14 - (_ERRORS if quiet else 0), STATE),
        "card.errors": f"{_brief(total)} err" if quiet else "",
        "card.calls": "…" if rates is None else f"{rate_text(rates['calls'])} calls/s",
        "card.hits": "" if reading.hit_share is None else f"{share_text(reading.hit_share)} hits",
        "card.in": "in …" if rates is None else f"in {speed_text(rates['bytes_in'])}",
        "card.out": "out …" if rates is None else f"out {speed_text(rates['bytes_out'])}",
        "card.note": _cut(", ".join(now + told), WIDTH, DETAIL),
        "state": shown(reading.health.words),
        "share": share_text(reading.hit_share) if reading.hit_share else "",
        "calls": f"{metrics.calls:,}",
        "hits": f"{metrics.hits:,}",
        "misses": f"{metrics.misses:,}",
        "bytes_in": size_text(metrics.bytes_in),
        "bytes_out": size_text(metrics.bytes_out),
        "errors": f"{total:,}",
        "kinds": ", ".join(f"{count:,} {kind}" for kind, count in errors.items()),
        "under_way": f"{metrics.under_way:,}",
        "gauges": ", ".join(words),
    }


def gauge_texts(gauges: Mapping[str, float]) -> list[str]:
    """Return what gauges say, as `gauge_words` does, with sizes and times as people read them."""
    words = []
    for name, value in gauges.items():
        if value and (name == "bytes" or name.endswith("_bytes")):
            what = name.removesuffix("bytes").strip("_").replace("_", " ")
            words.append(f"{what} {size_text(int(value))}".strip())
        elif value and name.endswith("_seconds"):
            words.append(f"{name.removesuffix('_seconds').replace('_', ' ')} {value:.3g} s")
        else:
            words += [word.replace("_", " ") for word in gauge_words({name: value})]
    return words


def rate_text(rate: float) -> str:
    """Return how often something happens in a second."""
    if rate >= 10 or not rate:
        return f"{rate:,.0f}"
    return f"{rate:.1f}"


def speed_text(speed: float) -> str:
    """Return how many bytes move in a second, in three digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if speed < 999.5 or unit == "GiB":
            break
        speed /= 1024
    return (
        "0"
        if not speed
        else f"{speed:.0f} {unit}/s"
        if speed >= 10 or unit == "B"
        else f"{speed:.1f} {unit}/s"
    )


def share_text(share: float) -> str:
    """Return a share in percent, which is 0 or 100 only if it is none or all."""
    percent = round(100 * share)
    return f"{min(max(percent, 1 if share else 0), 99 if share < 1 else 100)} %"


def _cut(text: str, limit: float, letters: Letters) -> str:
    """Return a text, without its end where it is too wide."""
    if width(text, letters) <= limit:
        return text
    while text and width(text + "…", letters) > limit:
        text = text[:-1]
    return text.rstrip(" ,:") + "…"


def _brief(number: int) -> str:
    return f"{number:,}" if number < 100_000 else f"{number // 1000:,}k"


def curve(traffic: Sequence[float]) -> str:
    """Return what was moved in the last minute as the outline of an area of `WIDTH` by `CURVE`."""
    most = max(traffic, default=0)
    if not most:
        return ""
    step = WIDTH / (SAMPLES - 2)
    begin = WIDTH - step * (len(traffic) - 1)
    points = [
        f"{begin + step * number:.1f} {CURVE - 1 - (CURVE - 2) * value / most:.1f}"
        for number, value in enumerate(traffic)
    ]
    return f"M{begin:.1f} {CURVE}L{'L'.join(points)}L{WIDTH} {CURVE}Z"
