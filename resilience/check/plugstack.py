"""What `mpsr check` looks at in plugstack.conf: our line, its arguments, and that they agree with mpsr.yaml.

The plugin reads its arguments on submit hosts, where no mpsr.yaml need be; so defaults, locks and prohibitions stand in
both places, and `mpsr render` writes both. This says where they differ. Returns findings and raises nothing.
"""

import glob
import os
from dataclasses import dataclass, field
from pathlib import Path

from resilience.check.finding import Finding, fine, note, warning, wrong
from resilience.check.slurm_conf import logical_lines
from resilience.contract import contract
from resilience.model.errors import ConfigError
from resilience.model.settings import PartitionRules, Settings
from resilience.parse.nearest import hint as did_you_mean
from resilience.parse.options import check_value

_PLUGIN = "mpsr.so"
_WORDS = ("launcher", "run", "prolog", "mpsr", "apptainer", "batch_hint", "lock", "forbid", "partition")
_KEYS = tuple(spec["key"] for spec in contract()["option"].values())
_DEPTH = 10


@dataclass(slots=True)
class Line:
    """Our line of a plugstack.conf."""

    file: str
    kind: str
    plugin: str
    arguments: list[str] = field(default_factory=list)


def check(path: str, settings: Settings, plugin_dir: str = "") -> list[Finding]:
    """The findings on one plugstack.conf."""
    found: list[Finding] = []
    lines = _lines(path, found, 0)
    if found:
        return found
    if not lines:
        return [
            wrong(path, f"does not load {_PLUGIN}", "add the line of plugstack.conf.d/mpsr.conf from `mpsr render`")
        ]
    if len(lines) > 1:
        found.append(wrong(path, f"loads {_PLUGIN} {len(lines)} times", ", ".join(line.file for line in lines)))
    line = lines[0]
    if line.kind == "required":
        text = "is required: when it fails on a node, Slurm drains the node and the batch job shows COMPLETED"
        found.append(warning(f"{line.file}: {_PLUGIN}", text, "write optional; the plugin refuses jobs by itself"))
    found.append(_plugin(line, plugin_dir))
    return found + _arguments(line, settings)


def _lines(path: str, found: list[Finding], depth: int) -> list[Line]:
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        found.append(wrong(path, f"cannot be read: {error.strerror or error}", "install the file from `mpsr render`"))
        return []
    lines: list[Line] = []
    for line in logical_lines(text):
        kind, *words = line.split()
        if kind == "include" and words and depth < _DEPTH:
            pattern = words[0] if words[0].startswith("/") else os.path.join(os.path.dirname(path), words[0])
            for file in sorted(glob.glob(pattern)):
                lines += _lines(file, found, depth + 1)
        elif kind in ("required", "optional") and words:
            if os.path.basename(words[0]) == _PLUGIN:
                lines.append(Line(file=path, kind=kind, plugin=words[0], arguments=words[1:]))
        else:
            kinds = ("required", "optional", "include")
            hint = did_you_mean(kind, kinds, f"one of {', '.join(kinds)}", 0.6)
            found.append(wrong(path, f"unknown word: {kind}", hint))
    return lines


def _plugin(line: Line, plugin_dir: str) -> Finding:
    path = line.plugin
    if not path.startswith("/"):
        if not plugin_dir:
            return note(f"{line.file}: {path}", "is relative to Slurm's PluginDir, which was not looked at")
        path = os.path.join(plugin_dir, path)
    if os.path.isfile(path):
        return fine(f"{line.file}: {_PLUGIN}", path)
    hint = "build it for this Slurm release, or correct install.plugin in the site file"
    return wrong(f"{line.file}: {_PLUGIN}", f"is not there: {path}", hint)


@dataclass(slots=True)
class Choices:
    """What the arguments say to one place: the site, or a partition. None: nothing."""

    defaults: dict[str, str] = field(default_factory=dict)
    locked: list[str] | None = None
    forbidden: list[str] | None = None

    def take(self, name: str, value: str) -> None:
        """One argument. Raises ConfigError, for an unknown name too."""
        if name == "lock":
            self.locked = sorted({*(self.locked or ()), *map(_known, filter(None, value.split(",")))})
        elif name == "forbid":
            key, _, word = value.partition("=")
            pairs = [f"{_known(key)}={check_value(key, word)}"] if value else []
            self.forbidden = sorted({*(self.forbidden or ()), *pairs})
        elif name.startswith("default."):
            key = _known(name.removeprefix("default."))
            self.defaults[key] = check_value(key, value)
        else:
            words = (*_WORDS, *(f"default.{key}" for key in _KEYS))
            hint = did_you_mean(name, words, f"known: {', '.join(_WORDS)}, default.*", 0.6)
            raise ConfigError("plugstack", "unknown argument", name, hint=hint)


def _arguments(line: Line, settings: Settings) -> list[Finding]:
    found: list[Finding] = []
    site, partitions = Choices(), dict[str, Choices]()
    place = site
    paths = {"launcher": contract()["path"]["launcher"], "run": contract()["path"]["run"], "prolog": ""}
    paths |= {"apptainer": "on", "batch_hint": "on", "mpsr": ""}
    for argument in line.arguments:
        name, equals, value = argument.partition("=")
        try:
            if not equals:
                raise ConfigError(
                    "plugstack", "is not key=value", argument, hint=f"known: {', '.join(_WORDS)}, default.*"
                )
            if name in paths:
                paths[name] = value
            elif name == "partition":
                place = partitions.setdefault(value, Choices())
            else:
                place.take(name, value)
        except ConfigError as error:
            found.append(wrong(f"{line.file}: {argument}", f"{error.wrong}: {error.observed}", error.hint))
    if found:
        return found
    if not os.access(paths["prolog"], os.X_OK):
        text = f"cannot be run: {paths['prolog'] or 'not given'}"
        hint = "without it a job whose prolog slurmd skips at a restart (seen on 22.05) is refused MPS"
        found.append(warning(f"{line.file}: prolog", text, hint))
    given = {key: value for key, value in settings.options.defaults.items() if value}
    pairs: list[tuple[str, object, object]] = [
        ("run", paths["run"], settings.paths.run),
        ("launcher", paths["launcher"], settings.paths.launcher),
        ("apptainer", paths["apptainer"], settings.options.apptainer),
        ("batch_hint", paths["batch_hint"], settings.options.batch_hint),
        ("default.*", site.defaults, given),
        ("lock", site.locked or [], sorted(settings.options.locked)),
        ("forbid", site.forbidden or [], sorted(settings.options.forbidden)),
    ]
    for name in sorted({*partitions, *settings.options.partitions}):
        ours, node = partitions.get(name), settings.options.partitions.get(name)
        pairs.append((f"partition={name}", ours and _words(ours), node and _words(node)))
    for name, here, there in pairs:
        if here != there:
            text = f"differs from mpsr.yaml: {here or 'nothing'} here, {there or 'nothing'} there"
            found.append(wrong(f"{line.file}: {name}", text, "render both from one site file: `mpsr render`"))
    return found or [fine(f"{line.file}: arguments", "agree with mpsr.yaml")]


def _words(choices: Choices | PartitionRules) -> str:
    """All that a partition says of its own, in one form."""
    words = [f"default.{key}={value}" for key, value in sorted(choices.defaults.items())]
    words += [] if choices.locked is None else [f"lock={','.join(sorted(choices.locked))}"]
    return (
        " ".join(words + ([] if choices.forbidden is None else [f"forbid={','.join(sorted(choices.forbidden))}"]))
        or "itself alone"
    )


def _known(key: str) -> str:
    if key not in _KEYS:
        hint = did_you_mean(key, _KEYS, f"known: {', '.join(_KEYS)}")
        raise ConfigError("plugstack", "unknown option key", key, hint=hint)
    return key
