"""Figures as people read them: every one with its unit, the unknown as "not measured"."""

from edgepack.results import Drop, Estimate, Number, Verdict

NOT_MEASURED = "not measured"

_ACRONYMS = {"auc", "hr", "map", "mrr", "ndcg"}

_LIMIT_WORDS = {
    "model_bytes": "model size",
    "download_bytes": "download size",
    "instructions": "instructions",
    "l2_misses": "L2 misses",
    "peak_memory_bytes": "peak memory",
    "latency_ms": "latency",
    "load_ms": "load time",
}


def printable(text: str) -> str:
    """Return `text` on one line without control characters, which terminals obey and XML forbids."""
    return "".join(char if char.isprintable() else " " for char in text)


def metric_words(name: str) -> str:
    """Return a ranking metric's usual spelling: "ndcg@10" is "NDCG@10", "recall@10" stays."""
    stem, at, k = name.partition("@")
    return f"{stem.upper() if stem in _ACRONYMS else stem}{at}{k}"


def limit_words(limit: str) -> str:
    """Return a budget limit in words: "peak_memory_bytes" is "peak memory"."""
    if limit.startswith(("drop of ", "group drop of ")):
        what, _, metric = limit.rpartition(" ")
        return f"{what} {metric_words(metric)}"
    return _LIMIT_WORDS.get(limit, limit.replace("_", " "))


def size(size_bytes: float) -> str:
    """Return bytes as B, kB (1,000 B) or MB (1,000,000 B), with three significant digits or more."""
    if abs(size_bytes) < 1_000:
        return f"{size_bytes:.0f} B"
    if abs(size_bytes) < 999_950:
        return f"{size_bytes / 1e3:.1f} kB"
    return f"{size_bytes / 1e6:.2f} MB"


def count(number: float) -> str:
    """Return a count as it is up to 9,999, then in k, M and G."""
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= scale:
            divisor = 1e3 if letter == "k" else scale
            return f"{number / divisor:.1f} {letter}"
    return f"{number:,.0f}"


def milliseconds(number: float) -> str:
    """Return a time given in milliseconds in ms, or in s from one second on."""
    if number >= 1_000:
        return f"{number / 1e3:.2f} s"
    if number >= 10:
        return f"{number:.1f} ms"
    return f"{number:.2f} ms" if number >= 0.1 else f"{number:.2g} ms"


def duration(seconds: float) -> str:
    """Return a time given in seconds as "8.4 s" or "12 min 4 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def percent(share: float, digits: int = 1) -> str:
    """Return a share of one in per cent: 0.0042 is "0.4 %"."""
    return f"{share * 100:.{digits}f} %"


def quantity(name: str, value: float | None) -> str:
    """Return a figure with the unit that its name ends with, or "not measured" for None."""
    if value is None:
        return NOT_MEASURED
    if name.endswith("_bytes"):
        return size(value)
    if name.endswith("_ms"):
        return milliseconds(value)
    if name.startswith(("drop of ", "group drop of ")):
        return percent(value, 2)
    if name.startswith("overlap"):
        return f"{value:.3f}"
    nouns = {"instructions": "instr.", "l2_misses": "misses", "l1d_misses": "misses"}
    return f"{count(value)} {nouns.get(name, name.replace('_', ' '))}"


def exactly(name: str, value: float | None) -> str:
    """Return the unrounded figure with its unit, for whoever points at the rounded one."""
    if value is None:
        return NOT_MEASURED
    if name.endswith("_bytes"):
        return f"{value:,.0f} bytes"
    if name.endswith("_ms"):
        return f"{value!r} ms"
    return f"{value:,} {name.replace('_', ' ')}" if isinstance(value, int) else f"{value!r}"


def number(figure: Number | Verdict | None) -> str:
    """Return a figure (or what a verdict found), its unit, its interval and the word for how it came to be.

    What has an interval alone reads "0.12 ms to 0.80 ms modelled".
    """
    name, value = _named_value(figure)
    if figure is None or (value is None and figure.low is None):
        return NOT_MEASURED
    return f"{_spanned(name, value, figure.low, figure.high)} {figure.provenance}"


def _named_value(figure: Number | Verdict | None) -> tuple[str, float | None]:
    if isinstance(figure, Verdict):
        return figure.limit, figure.found
    return (figure.name, figure.value) if figure else ("", None)


def _spanned(name: str, value: float | None, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return quantity(name, value)
    ends = quantity(name, low), quantity(name, high)
    return f"{ends[0]} to {ends[1]}" if value is None else f"{quantity(name, value)} [{ends[0]}, {ends[1]}]"


def with_error(figure: Number | Verdict | None) -> str:
    """Return a figure as `number` does, and what is known of its error."""
    error = figure.error if figure else ""
    return f"{number(figure)} ({error})" if error else number(figure)


def estimate(mean: Estimate | None) -> str:
    """Return a mean with its 95 % interval in brackets, if that was computed."""
    if mean is None:
        return NOT_MEASURED
    if mean.low is None or mean.high is None:
        return f"{mean.value:.4f}"
    return f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}]"


def drop(loss: Drop | None) -> str:
    """Return a relative loss in per cent with its two-sided 95 % interval; below zero is a gain."""
    if loss is None:
        return NOT_MEASURED
    return f"{percent(loss.value, 2)} [{loss.low * 100:.2f}, {loss.high * 100:.2f}]"


def allowed(verdict: Verdict) -> str:
    """Return a limit's bound in words: "at most 4.00 MB", "at least 0.800"."""
    relation = "at least" if verdict.limit.startswith("overlap") else "at most"
    return f"{relation} {quantity(verdict.limit, verdict.allowed)}"
