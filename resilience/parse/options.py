"""The serialized option string (SPANK_MPSR, MPSR_OPTIONS, a lease's `options`) to and from JobOptions.

The string is user input wherever root reads it (docs/reference/protocols.md §3): the character set and the length are
checked first, every value against contract.toml, and nothing is evaluated. Errors name key, value and what is allowed.
"""

from resilience.contract import contract
from resilience.model.errors import ConfigError
from resilience.model.options import Domain, Endings, JobOptions, OnCulprit, Ranks, Require, Rung, Servers, Unattached

_OPTIONS = {spec["key"]: spec for spec in contract()["option"].values()}
_CHARSET = frozenset(contract()["wire"]["charset"])
_MAX_BYTES = int(contract()["wire"]["max_bytes"])
_UNITS_KIB = {"k": 1, "m": 1 << 10, "g": 1 << 20, "t": 1 << 30}
_MAX_MIB = 1 << 40
_MOST_DIGITS = 18
"""As in C, where they fit a long."""


def size_mib(text: str) -> int:
    """A size such as 512K, 512M, 4G or 2048 (MiB) as whole MiB, kibibytes rounded up. Raises ValueError."""
    low = text.lower()
    unit = _UNITS_KIB.get(low[-1:], 0)
    digits = (low[:-1] if unit else low).lstrip("0") or "0"
    if (
        not (digits.isascii() and digits.isdigit())
        or len(digits) > _MOST_DIGITS
        or not low.startswith(tuple("0123456789"))
    ):
        raise ValueError(text)
    mib = -(-int(digits) * (unit or _UNITS_KIB["m"]) // _UNITS_KIB["m"])
    if not 0 < mib < _MAX_MIB:
        raise ValueError(text)
    return mib


def check_value(key: str, text: str) -> str:
    """The canonical form of one option's value (sizes in MiB, flags as on/off). Raises ConfigError."""
    spec = _OPTIONS.get(key)
    if spec is None:
        raise ConfigError("options", "unknown key", key, hint=f"known: {', '.join(_OPTIONS)}")
    kind, choices = spec["kind"], spec.get("choices", [])
    if text == "" and spec["default"] == "":
        return ""
    if kind == "flag" and text in ("on", "off"):
        return text
    if kind == "choice" and text in choices:
        return text
    if kind == "list":
        rungs = text.split(",")
        if len(set(rungs)) == len(rungs) and all(rung in choices for rung in rungs):
            return ",".join(choice for choice in choices if choice in rungs)
    limit = {"percent": 100, "count": spec.get("max", 0)}.get(kind)
    if limit is not None and text.isascii() and text.isdigit() and len(text) <= 4:
        low = 1 if kind == "percent" else 0
        if low <= int(text) <= limit:
            return str(int(text))
    if kind == "size":
        try:
            return str(size_mib(text))
        except ValueError:
            pass
    raise ConfigError("options", f"bad value for {key}", text, hint=f"give {spec['arg']}")


def parse(text: str) -> JobOptions:
    """The options behind a serialized string; absent keys take the contract's defaults. Raises ConfigError."""
    if len(text) > _MAX_BYTES:
        raise ConfigError("options", f"longer than {_MAX_BYTES} bytes", len(text))
    if stray := sorted(set(text) - _CHARSET):
        raise ConfigError("options", "character not allowed", repr("".join(stray))[:40])
    values: dict[str, str] = {}
    for pair in filter(None, text.split(";")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError("options", "not key=value", pair)
        if key in values:
            raise ConfigError("options", "key given twice", key)
        values[key] = check_value(key, value)
    return from_values(values)


def from_values(values: dict[str, str]) -> JobOptions:
    """JobOptions from checked values by key."""
    full = {key: values.get(key, str(spec["default"])) for key, spec in _OPTIONS.items()}

    def number(key: str) -> int | None:
        return int(full[key]) if full[key] else None

    return JobOptions(
        mps=full["mps"] == "on",
        domain=Domain(full["domain"]),
        threads=number("threads"),
        memory=number("memory"),
        state=number("state"),
        standby=full["standby"] == "on",
        recover=tuple(Rung(rung) for rung in full["recover"].split(",")),
        retries=int(full["retries"]),
        on_culprit=OnCulprit(full["on-culprit"]),
        ranks=Ranks(full["ranks"]),
        servers=Servers(full["servers"]),
        unattached=Unattached(full["unattached"]),
        endings=Endings(full["endings"]),
        require=Require(full["require"]),
    )


def serialize(options: JobOptions) -> str:
    """The canonical string: every key, in the contract's order."""
    return ";".join(f"{key}={value}" for key, value in to_values(options).items())


def to_values(options: JobOptions) -> dict[str, str]:
    """Canonical values by key, every key, in the contract's order."""

    def number(value: int | None) -> str:
        return "" if value is None else str(value)

    values = {
        "mps": "on" if options.mps else "off",
        "domain": options.domain.value,
        "threads": number(options.threads),
        "memory": number(options.memory),
        "state": number(options.state),
        "standby": "on" if options.standby else "off",
        "recover": ",".join(options.recover),
        "retries": str(options.retries),
        "on-culprit": options.on_culprit.value,
        "ranks": options.ranks.value,
        "servers": options.servers.value,
        "unattached": options.unattached.value,
        "endings": options.endings.value,
        "require": options.require.value,
    }
    return {key: values[key] for key in _OPTIONS}
