"""`mpsr render --site site.yaml --out DIR`: the files of a cluster from one YAML of choices.

Files of Slurm's configuration directory land in DIR itself, the system's own (units, tmpfiles, logrotate) below
DIR/etc. Nothing outside DIR is touched. Raises ConfigError.
"""

import argparse
import sys
from pathlib import Path

from resilience.config import mpsr_yaml, render
from resilience.contract import exit_code
from resilience.model.errors import ConfigError


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write the files of a cluster (mpsr.yaml, parts of slurm.conf, gres.conf and plugstack.conf, scripts, units) from one "
        "site file."
    )
    parser.add_argument("--site", required=True, metavar="FILE", help="the site's choices (docs/reference/site.md)")
    parser.add_argument("--out", required=True, metavar="DIR", type=Path, help="directory for the files")
    parser.add_argument("--templates", metavar="DIR", type=Path, help="other templates than the installed ones")


def run(arguments: argparse.Namespace) -> int:
    site = load_site(arguments.site)
    rendered = render.files(site, arguments.templates or templates())
    for path in render.write(rendered, arguments.out):
        print(path)
    return exit_code("ok")


def load_site(path: str) -> render.Site:
    """The choices in a site file, which need not be trusted: its results are looked at before they are installed."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, "cannot be read", getattr(error, "strerror", None) or error) from error
    return render.parse_site(text, mpsr_yaml.shown(path).strip("'"))


def templates() -> Path:
    """The templates of this installation: beside the package in a source tree, else below the prefix."""
    places = [Path(render.__file__).parents[1] / "templates/site", Path(sys.prefix) / "share/mpsr/templates/site"]
    for place in places:
        if place.is_dir():
            return place
    raise ConfigError(
        "templates",
        "not found",
        " ".join(map(str, places)),
        hint="give --templates DIR: templates/site of the source tree",
    )
