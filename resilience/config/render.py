"""One YAML of a site's choices to the files that a cluster needs: mpsr.yaml, plugstack, gres.conf, hooks, units.

Relies on `templates/site/*.j2`, filled by jinja2 with StrictUndefined, and on `config.fill` for the schema, which the
dataclasses below are. Every value that reaches a template is a number, one of a few words, or a text that was checked
against a narrow set of characters, so that none can begin a new line or need quoting; a test tries. `files` is pure
but for reading the templates; `write` puts each file in place with a rename. Raises ConfigError only.
"""

import json
import math
import os
import re
import tempfile
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import jinja2

from resilience.config import mpsr_yaml
from resilience.contract import contract
from resilience.contract import path as path_of
from resilience.model.errors import ConfigError
from resilience.model.settings import PartitionRules, Settings, setting
from resilience.parse import rules
from resilience.parse.hostlist import expand, nodes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_WORDS = re.compile(r"(?:[A-Za-z0-9_]+(?:,[A-Za-z0-9_]+)*)?\Z")
_VERSION = re.compile(r"[0-9]{2}\.(?:02|05|08|11)\Z")
_DEADLINE_MARGIN = 10
"""Seconds that the script gives `mpsr prolog` beyond its own deadline before it is ended by force."""
_SOCKET_PATH = 107
"""sun_path less its NUL (unix(7))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSlurm:
    version: str = setting("22.05", "the site's Slurm release, YY.MM; the plugin is built for exactly this one")
    conf_dir: str = setting("/etc/slurm", "directory of slurm.conf; our files go there")
    prolog_flags: str = setting(
        "Alloc", "the site's PrologFlags, such as Contain,X11; Alloc is added; empty: slurm.conf's own line stays"
    )
    gres_types: str = setting("gpu", "the site's GresTypes; ours are added; empty: slurm.conf's own line stays")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteGpus:
    per_node: int = setting(1, "GPUs of each node")
    type: str = setting("", "GPU type as gres.conf names it, such as h100; empty: none")
    files: str = setting("", "device files of one node; {node} is its name; empty: /dev/nvidia[0-N]")
    autodetect: str = setting("off", "AutoDetect of gres.conf", choices=("off", "nvml"))
    mps: int = setting(100, "gres/mps units of each GPU; 0: no gres/mps")
    shards: int = setting(0, "gres/shard units of each GPU; 0: no gres/shard; beside gres/mps it needs a type")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteInstall:
    """Empty paths follow from the prefix; the help shows how."""

    prefix: str = setting("/usr", "where the package was installed")
    plugin: str = setting("", "the SPANK plugin; empty: {prefix}/lib/slurm/mpsr.so")
    launcher: str = setting("", "the supervisor of a task; empty: {prefix}/libexec/mpsr/mpsr-launch")
    prolog: str = setting("", "our prolog script; empty: {prefix}/libexec/mpsr/prolog")
    epilog: str = setting("", "our epilog script; empty: {prefix}/libexec/mpsr/epilog")
    hook: str = setting("", "what the scripts ask the hook server with; empty: {prefix}/libexec/mpsr/mpsr-hook")
    mpsr: str = setting("", "the command; empty: {prefix}/bin/mpsr")
    python: str = setting("/usr/bin/python3", "interpreter of the keeper, which must see the package")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    nodes: str = setting("", "the GPU nodes as slurm.conf names them, such as gpu[01-16]")
    units: str = setting("systemd", "what starts the node agent", choices=("systemd", "none"))
    slurm: SiteSlurm = field(default_factory=SiteSlurm)
    gpus: SiteGpus = field(default_factory=SiteGpus)
    install: SiteInstall = field(default_factory=SiteInstall)
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """One file. `path` is relative to Slurm's configuration directory, or absolute for the system's own places."""

    path: str
    mode: int
    text: str


_FILES: tuple[tuple[str, str, int, bool], ...] = (
    # template, path (absolute: outside conf_dir), mode, only with systemd
    ("mpsr.yaml.j2", "mpsr.yaml", 0o644, False),
    ("slurm-mpsr.conf.j2", "slurm-mpsr.conf", 0o644, False),
    ("gres.conf.j2", "gres.conf", 0o644, False),
    ("plugstack.conf.j2", "plugstack.conf", 0o644, False),
    ("plugstack-mpsr.conf.j2", "plugstack.conf.d/mpsr.conf", 0o644, False),
    ("prolog.j2", "prolog.d/50-mpsr", 0o755, False),
    ("epilog.j2", "epilog.d/50-mpsr", 0o755, False),
    ("mpsr-agent.service.j2", "/etc/systemd/system/mpsr-agent.service", 0o644, True),
    ("mpsr.slice.j2", "/etc/systemd/system/mpsr.slice", 0o644, True),
    ("tmpfiles.conf.j2", "/etc/tmpfiles.d/mpsr.conf", 0o644, True),
    ("logrotate.j2", "/etc/logrotate.d/mpsr", 0o644, True),
)


def parse_site(text: str, source: str) -> Site:
    """The site's choices, checked, with the paths that follow from the prefix filled in."""
    values = mpsr_yaml.mapping(text, source)
    settings = values.get("settings")
    paths = settings.get("paths") if isinstance(settings, dict) else None
    for name, place in (("python", "install.python"), ("launcher", "install.launcher"), ("devices", "gpus.files")):
        if isinstance(paths, dict) and name in paths:
            raise ConfigError(f"{source}: settings.paths.{name}", "is set in two places", hint=f"set {place}")
    site = mpsr_yaml.fill(Site, values, source)
    return _checked(site, source)


def _checked(site: Site, source: str) -> Site:
    if not _VERSION.match(site.slurm.version):
        raise ConfigError(f"{source}: slurm.version", "is not YY.MM", site.slurm.version, hint='such as "22.05"')
    mpsr_yaml.check_path(f"{source}: slurm.conf_dir", site.slurm.conf_dir)
    mpsr_yaml.check_path(f"{source}: install.prefix", site.install.prefix)
    for name in ("prolog_flags", "gres_types"):
        if not _WORDS.match(words := getattr(site.slurm, name)):
            raise ConfigError(
                f"{source}: slurm.{name}",
                "is not a list of words",
                mpsr_yaml.shown(words),
                hint="such as Alloc,Contain",
            )
    prefix = site.install.prefix.rstrip("/")
    follow = {
        "plugin": f"{prefix}/lib/slurm/mpsr.so",
        "launcher": f"{prefix}/libexec/mpsr/mpsr-launch",
        "prolog": f"{prefix}/libexec/mpsr/prolog",
        "epilog": f"{prefix}/libexec/mpsr/epilog",
        "hook": f"{prefix}/libexec/mpsr/mpsr-hook",
        "mpsr": f"{prefix}/bin/mpsr",
    }
    install = replace(site.install, **{name: getattr(site.install, name) or path for name, path in follow.items()})
    for name in (*follow, "python"):
        mpsr_yaml.check_path(f"{source}: install.{name}", getattr(install, name))
    gpus = site.gpus
    for name, high in (("per_node", 256), ("mps", 10_000), ("shards", 1_000)):
        low = 1 if name == "per_node" else 0
        if not low <= getattr(gpus, name) <= high:
            raise ConfigError(f"{source}: gpus.{name}", f"is not within {low} and {high}", getattr(gpus, name))
    if gpus.type and not _NAME.match(gpus.type):
        raise ConfigError(f"{source}: gpus.type", "is not a name", mpsr_yaml.shown(gpus.type))
    if gpus.mps and gpus.shards and not gpus.type:
        hint = "give gpus.type, or set one of the two to 0: Slurm 22.05 then names no GPU to jobs of the other kind"
        raise ConfigError(f"{source}: gpus", "gres/mps and gres/shard on GPUs without a type", gpus.files, hint=hint)
    files = gpus.files or ("/dev/nvidia0" if gpus.per_node == 1 else f"/dev/nvidia[0-{gpus.per_node - 1}]")
    mpsr_yaml.check_devices(f"{source}: gpus.files", files)
    if len(found := expand(files, f"{source}: gpus.files")) != gpus.per_node:
        raise ConfigError(f"{source}: gpus.files", f"names {len(found)} devices, not {gpus.per_node}", files)
    if not site.nodes:
        raise ConfigError(f"{source}: nodes", "is missing", hint="the GPU nodes, such as gpu[01-16]")
    devices = files if gpus.autodetect == "off" else ""  # what is detected comes in the driver's own order
    paths = replace(site.settings.paths, python=install.python, launcher=install.launcher, devices=devices)
    settings = mpsr_yaml.checked(replace(site.settings, paths=paths), source, "settings.")
    for node in nodes(site.nodes, f"{source}: nodes"):
        longest = f"{settings.paths.run}/{node}/d/u4294967295/g{gpus.per_node - 1}/q99/control_privileged"
        if len(longest) > _SOCKET_PATH:
            hint = f"{longest} is longer than {_SOCKET_PATH} characters"
            raise ConfigError(f"{source}: settings.paths.run", "is too long for a socket's path", node, hint=hint)
    return replace(site, gpus=replace(gpus, files=files), install=install, settings=settings)


def files(site: Site, templates: Path) -> tuple[Rendered, ...]:
    """Every file of the site, rendered. Raises ConfigError naming the template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # no HTML: what goes in was checked character by character
    )
    values = _values(site)
    rendered = []
    for template, path, mode, systemd in _FILES:
        if systemd and site.units != "systemd":
            continue
        try:
            text = environment.get_template(template).render(values)
        except jinja2.TemplateError as error:
            raise ConfigError(f"template {template}", "cannot be rendered", error) from error
        rendered.append(Rendered(path=path, mode=mode, text=text))
    return tuple(rendered)


def _values(site: Site) -> dict[str, Any]:
    names = nodes(site.nodes, "nodes")
    options = site.settings.options
    per_node = "{node}" in site.gpus.files
    groups = [(name, site.gpus.files.replace("{node}", name)) for name in names] if per_node else []
    gres = f"gpu:{site.gpus.type}:{site.gpus.per_node}" if site.gpus.type else f"gpu:{site.gpus.per_node}"
    types = ["gpu"]
    for name, units in (("mps", site.gpus.mps), ("shard", site.gpus.shards)):
        if units:
            types.append(name)
            gres += f",{name}:{units * site.gpus.per_node}"
    sections: dict[str, list[tuple[str, str, str]]] = {}
    for key, setting_field, _ in mpsr_yaml.leaves(Settings):
        section, name = key.split(".")
        value = getattr(getattr(site.settings, section), name)
        shown = json.dumps(value, ensure_ascii=True, default=_own)
        sections.setdefault(section, []).append((name, shown, str(setting_field.metadata["help"])))
    return {
        "site": site,
        "run": site.settings.paths.run,
        "log": site.settings.paths.log,
        "state": site.settings.paths.state,
        "rooms": site.settings.prolog.room_mib > 0,
        "options": options,
        "conf": site.slurm.conf_dir.rstrip("/") or "/",
        "gres": gres,
        "gres_types": _joined(site.slurm.gres_types, types),
        "prolog_flags": _joined(site.slurm.prolog_flags, ["Alloc"]),
        "device_groups": groups or [(site.nodes, site.gpus.files)],
        "sections": sections,
        "asking": [
            name for name in options.partitions if rules.defaults(rules.of_partition(options, name))["mps"] == "on"
        ],
        "deadline": math.ceil(site.settings.prolog.timeout) + _DEADLINE_MARGIN,
        "env_config": contract()["env"]["config"],
        "hook_socket": path_of("hook_socket", run=site.settings.paths.run, node="$SLURMD_NODENAME"),
    }


def _own(partition: PartitionRules) -> dict[str, Any]:
    """What a partition says of its own, for JSON."""
    return {field.name: value for field in fields(partition) if (value := getattr(partition, field.name)) is not None}


def _joined(site: str, ours: list[str]) -> str:
    """The site's words with ours added; empty when the site keeps its own line."""
    words = site.split(",")
    there = {word.lower() for word in words}
    return ",".join(words + [word for word in ours if word.lower() not in there]) if site else ""


def write(rendered: tuple[Rendered, ...], out: Path) -> list[Path]:
    """The files below `out`: those of Slurm's directory directly, the system's own at their absolute path below it."""
    written = []
    for item in rendered:
        target = out / item.path.lstrip("/")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(item.text)
                    os.fchmod(file.fileno(), item.mode)
                os.replace(temporary, target)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            raise ConfigError(str(target), "cannot be written", error.strerror or error) from error
        written.append(target)
    return written
