"""What a site allows: its defaults, the options that it has locked, the values that it forbids. Pure.

The one rule for `check`, `explain`, prolog and agent; spank_plugin/plugin/site.c is its twin, and tests/data/options.json
holds both to the same cases. `of_partition` gives the rules for the jobs of one partition. A list is forbidden by
element: `recover=requeue` forbids every list that has `requeue` in it.
"""

from collections.abc import Mapping
from dataclasses import replace

from resilience.contract import contract
from resilience.model.errors import ConfigError
from resilience.model.options import JobOptions
from resilience.model.settings import Options as Rules
from resilience.parse import options

_SPECS = {str(spec["key"]): spec for spec in contract()["option"].values()}
_NAMES = {str(spec["key"]): f"--{name}" for name, spec in contract()["option"].items()}


def of_partition(rules: Rules, partition: str) -> Rules:
    """The rules for jobs of one of Slurm's partitions: what it says of its own stands in place of the site's."""
    own = rules.partitions.get(partition)
    if own is None:
        return replace(rules, partitions={})
    return replace(
        rules,
        defaults={**rules.defaults, **own.defaults},
        locked=rules.locked if own.locked is None else own.locked,
        forbidden=rules.forbidden if own.forbidden is None else own.forbidden,
        partitions={},
    )


def defaults(rules: Rules) -> dict[str, str]:
    """What holds for each option when a user says nothing."""
    return {key: str(spec["default"]) for key, spec in _SPECS.items()} | dict(rules.defaults)


def forbidden_word(rules: Rules, key: str, value: str) -> str:
    """The value, or the word of a list, that a site forbids in a canonical value; empty when it forbids none."""
    words = value.split(",") if _SPECS[key]["kind"] == "list" else [value]
    banned = {word for name, _, word in (pair.partition("=") for pair in rules.forbidden) if name == key}
    return next((word for word in [value, *words] if word in banned), "")


def refusal(rules: Rules, key: str, value: str) -> str:
    """Why a user may not ask for a canonical value; empty when he may."""
    fixed = defaults(rules)[key]
    if key in rules.locked and value != fixed:
        return f"fixed by the administrator at {fixed or 'no limit'}"
    if word := forbidden_word(rules, key, value):
        return f"{word} is forbidden by the administrator"
    return ""


def on_node(asked: Mapping[str, str], rules: Rules) -> JobOptions:
    """The same for the string that a job brings to its node. Raises ConfigError.

    It holds every key, asked for or not, and may be older than a lock: so a locked option is replaced here, where the
    plugin, which knows what the user said, refuses it.
    """
    return in_force({key: value for key, value in asked.items() if key not in rules.locked}, rules)


def within(asked: JobOptions, job: JobOptions, rules: Rules) -> JobOptions:
    """What holds for a task of a job that asks for other options than its job has. Raises ConfigError.

    What the job has was allowed when its prolog looked, and stays so. Domain and servers are the job's.
    """
    held = options.to_values(job)
    values = {**options.to_values(asked), "domain": held["domain"], "servers": held["servers"]}
    for key in (key for key, value in values.items() if value != held[key]):
        if key in rules.locked:
            values[key] = held[key]
        elif why := refusal(rules, key, values[key]):
            raise ConfigError(_NAMES[key], why, values[key], hint="leave it out, or ask the administrator")
    return options.from_values(values)


def in_force(asked: Mapping[str, str], rules: Rules) -> JobOptions:
    """The options that hold for a user who asks for canonical values by key. Raises ConfigError for what is refused.

    What the site has by default is looked at too: a forbidden value is refused whoever put it there. A job that says
    mps=off is refused nothing but that.
    """
    values = defaults(rules) | dict(asked)
    for key in values if asked.get("mps") != "off" else ("mps",):
        if why := refusal(rules, key, value := values[key]):
            raise ConfigError(_NAMES[key], why, value, hint="leave it out, or ask the administrator")
    return options.from_values(values)
