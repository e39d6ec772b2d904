"""Writes the reference pages that follow from the code: mpsr.yaml (also as man page), site file, options, events, metrics.

`make docs` writes them below this file's directory; tests/unit/test_render_reference.py fails when a page is
stale."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from resilience.config.mpsr_yaml import leaves
from resilience.config.render import Site
from resilience.contract import contract
from resilience.metrics import FAMILIES
from resilience.model.records.base import meaning
from resilience.model.records.journal import KINDS
from resilience.model.settings import Settings

_MADE = "<!-- Made by docs/generate.py from the code; edit that, not this. -->\n"


def _kind(field: Any, kind: Any) -> str:
    if choices := field.metadata["choices"]:
        return " or ".join(f"`{choice}`" for choice in choices)
    if field.metadata["within"]:
        low, high = field.metadata["within"]
        return f"{'whole number' if kind is int else 'number'}, {low:g} to {high:g}"
    if kind is int:
        return "whole number"
    return {"str": "text"}.get(getattr(kind, "__name__", ""), "mapping" if "dict" in str(kind) else "list")


def _default(field: Any) -> str:
    value = field.default_factory() if callable(field.default_factory) else field.default
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _table(kind: type, skip: str = "") -> str:
    text, section = "", ""
    for key, field, annotation in leaves(kind):
        if skip and key.startswith(skip):
            continue
        if (new := key.rpartition(".")[0]) != section or not text:
            section = new
            text += f"\n## {section or 'Top level'}\n\n| key | value | default | meaning |\n|---|---|---|---|\n"
        values = _kind(field, annotation)
        text += f"| `{key}` | {values} | `{_default(field)}` | {field.metadata['help'].replace('<', '&lt;')} |\n"
    return text


def mpsr_yaml() -> str:
    return f"""{_MADE}# mpsr.yaml

The settings of a node. The prolog, the epilog, the agent and the commands read `/etc/slurm/mpsr.yaml`, or the file
that `MPSR_CONFIG` or `--config` names. Without the file every setting has its default. The file and every directory
above it must belong to root and be writable by nobody else.

Each section is a mapping. An unknown key, a wrong type or a number out of range is an error that names the key, the
value and the nearest valid name; nothing is ignored. Times are in seconds unless the name says otherwise. `mpsr
check` reads the file and says what is wrong. How to choose: [how-to/configure.md](../how-to/configure.md).
{_table(Settings)} ## Values of options

`options.defaults` maps the keys of [options.md](options.md) to values. `options.locked` lists keys that a user
cannot set to anything else. `options.forbidden` lists `key=value` pairs that nobody may ask for; a pair that holds
by default cannot be forbidden.

`options.partitions` has the same three for jobs of single partitions of Slurm; each default, the whole of `locked` and
the whole of `forbidden` stand in place of the site's ([how-to/partitions.md](../how-to/partitions.md)). """


def site() -> str:
    return f"""{_MADE}# The site file

`mpsr render --site site.yaml --out DIR` makes every file of a cluster from this one. `templates/site/site.yaml` is
a commented example. Where Debian's packages are installed, `install.plugin` is the one key of `install` to give, and
`/usr/share/doc/mpsr/examples/site.yaml` gives it: `/usr/lib/x86_64-linux-gnu/slurm-wlm/mpsr.so` on amd64.

A text may hold letters, digits and `. _ + @ , : / -`; anything else is refused, so that no
value can add a line to a file of Slurm.

| file in DIR | goes to | what it is |
|---|---|---|
| `mpsr.yaml` | `conf_dir` | settings of the nodes ([mpsr.yaml.md](mpsr.yaml.md)) |
| `slurm-mpsr.conf` | `conf_dir` | what slurm.conf needs: `include` it there |
| `gres.conf` | `conf_dir` | GPUs and their shares; add to an existing one |
| `plugstack.conf`, `plugstack.conf.d/mpsr.conf` | `conf_dir` | loads the plugin, on submit hosts and nodes |
| `prolog.d/50-mpsr`, `epilog.d/50-mpsr` | `conf_dir` | hooks that run the product's scripts |
| `etc/systemd/system/mpsr-agent.service`, `mpsr.slice` | `/etc` | the node agent (units: systemd) |
| `etc/tmpfiles.d/mpsr.conf` | `/etc` | directories after a boot (units: systemd) |
| `etc/logrotate.d/mpsr` | `/etc` | rotation of the journals (units: systemd) |
{_table(Site, skip="settings.")}
## settings

The content of mpsr.yaml, with the same keys. `settings.paths.python` and `settings.paths.launcher` are not allowed
here: they come from `install`. """


def options() -> str:
    rows = ""
    for name, spec in contract()["option"].items():
        argument = {"flag": f"[={spec['arg']}]"}.get(spec["kind"], f"={spec['arg']}")
        default = f"`{spec['default']}`" if spec["default"] else "none"
        shown = f"`--{name}{argument}`".replace("|", "\\|")
        rows += f"| {shown} | `{spec['env']}` | `{spec['key']}` | {default} | {spec['help']} |\n"
    return f"""{_MADE}# Options of sbatch, srun and salloc

The command line beats `#SBATCH` lines, these beat the environment, the environment beats the admin's default
(`options.defaults`), that beats the default below. A locked option keeps the admin's value. A wrong value is
refused at submit. `mpsr explain --options "mps=on;domain=job"` says what a set of options would do.

| option | environment | key | default | meaning |
|---|---|---|---|---|
{rows}
A size is a whole number with `M`, `G` or `T`; without a letter it counts MiB. The rungs of `--mps-recover` are
`standby`, `restore`, `relaunch` and `requeue`; their order on the command line does not matter.
"""


def _roff(text: str) -> str:
    """A text as roff takes it: no line begins with a request, minus signs are minus signs."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def man_yaml() -> str:
    body, section = "", ""
    for key, field, annotation in leaves(Settings):
        if (new := key.split(".")[0]) != section:
            section = new
            body += f".SS {section}\n"
        kind = _kind(field, annotation).replace("`", "")
        meaning = str(field.metadata["help"])
        body += f".TP\n.B {_roff(key)}\n{_roff(meaning[0].upper() + meaning[1:])}.\n"
        body += f"{_roff(kind[0].upper() + kind[1:])}; default {_roff(_default(field))}.\n"
    return f""".\\" Made by docs/generate.py from the code; edit that, not this.
.TH MPSR.YAML 5 "" "mpsr" "File Formats"
.SH NAME
mpsr.yaml \\- settings of mpsr on a node
.SH DESCRIPTION
A YAML file of sections, each a mapping of keys to values. The prolog, the epilog, the agent and the commands read
.I /etc/slurm/mpsr.yaml
or the file that
.B MPSR_CONFIG
names. Without it every setting has its default. Root must own the file, and nobody else may write it or a directory
above it. An unknown key or a bad value is an error that names it;
.B mpsr check
tells. Times are in seconds unless the name says otherwise.
.SH SETTINGS
{body}.SH SEE ALSO
.BR mpsr (1),
.BR mpsr\\-agent (8)
"""


def journal() -> str:
    """The page is written by hand but for its table of events and their fields."""
    page = (Path(__file__).parent / "reference" / "journal.md").read_text(encoding="utf-8")
    head, _, rest = page.partition(_EVENTS)
    _, separator, tail = rest.partition("\n## ")
    rows = ""
    for event, kind in KINDS.items():
        rows += f"| **`{event}`** | | {kind.SINCE} | {meaning(event)} |\n"
        for field in fields(kind):
            if field.name != "incident":
                says = field.metadata["help"].replace("<", "&lt;")
                rows += f"| `{field.name}` | {_json_type(field.type)} | {field.metadata['since']} | {says} |\n"
    return f"{head}{_EVENTS}{rows}{separator}{tail}"


def _json_type(kind: Any) -> str:
    text = str(kind) if get_args(kind) else kind.__name__
    if "Mapping" in text:
        return "object"
    if "tuple" in text:
        return "list"
    if "bool" in text:
        return "boolean"
    return "number" if any(word in text for word in ("int", "float", "JobId")) and "Client" not in text else "string"


def metrics() -> str:
    """The page is written by hand but for its table."""
    page = (Path(__file__).parent / "reference" / "metrics.md").read_text(encoding="utf-8")
    head, _, rest = page.partition(_METRICS)
    _, separator, tail = rest.partition("\n## ")
    rows = ""
    for family in FAMILIES.values():
        labels = "<br>".join(
            f"`{label.name}`: {', '.join(f'`{value}`' for value in label.values) or _MET[label.name]}"
            for label in family.labels
        )
        rows += f"| `{family.name}` | {family.kind.value} | {labels} | {family.help} |\n"
    return f"{head}{_METRICS}{rows}{separator}{tail}"


_METRICS = "| metric | kind | labels | says |\n|---|---|---|---|\n"
_MET = {
    "gpu": "the GPU's UUID; those of a server over several, with commas, when no Xid says which it was",
    "xid": "an Xid that NVIDIA documents, else `none` or `other`",
}
_EVENTS = "| event, field | type | since | says |\n|---|---|---|---|\n"
PAGES = {
    "reference/mpsr.yaml.md": mpsr_yaml,
    "reference/site.md": site,
    "reference/options.md": options,
    "reference/journal.md": journal,
    "reference/metrics.md": metrics,
    "man/mpsr.yaml.5": man_yaml,
}

if __name__ == "__main__":
    for page, text in PAGES.items():
        (Path(__file__).parent / page).write_text(text(), encoding="utf-8")
