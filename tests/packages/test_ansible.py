"""The role and the playbooks of templates/ansible: form, description of each variable, syntax. What they do: test_rollout.py."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.packages.system import REPO

HERE = REPO / "templates/ansible"
PLAYBOOKS = sorted(path.name for path in HERE.glob("*.yml") if not path.name.startswith("inventory"))
TASKS = sorted((HERE / "roles/mpsr").glob("*/*.yml"))
ansible = pytest.mark.skipif(
    not shutil.which("ansible-playbook"), reason="ansible is not installed: apt-get install ansible-core"
)


def tasks() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each task of the role and the playbooks, with the name of its file."""
    for path in [*TASKS, *(HERE / name for name in PLAYBOOKS)]:
        content = yaml.safe_load(path.read_text())
        if isinstance(content, list):
            for item in content:
                for task in item.get("tasks", [item]):
                    yield path.name, task


def test_each_task_is_of_good_form() -> None:
    """What ansible-lint asks for, as far as it matters here: names, whole names of modules, modes, when a command changes something."""
    keywords = {"name", "when", "loop", "loop_control", "register", "notify", "listen", "environment", "vars"}
    keywords |= {"changed_when", "failed_when", "become", "become_user", "delegate_to"}
    for file, task in tasks():
        assert re.match(r"[A-Z]", task.get("name", "")), f"{file}: a task without a name: {task}"
        (module,) = task.keys() - keywords
        assert module.startswith("ansible.builtin."), f"{file}: {module}"
        values = task[module] if isinstance(task[module], dict) else {}
        if module.endswith(".command"):
            assert "changed_when" in task, f"{file}: {task['name']}: does it change something?"
            assert "argv" in values, f"{file}: {task['name']}: a shell would take it apart"
        directory = module.endswith(".file") and values.get("state") == "directory"
        if module.endswith(".copy") or values.get("create") or directory:
            assert re.fullmatch(r"0\d{3}", values.get("mode", "")), f"{file}: {task['name']}: mode"


def test_each_variable_is_described() -> None:
    specs = yaml.safe_load((HERE / "roles/mpsr/meta/argument_specs.yml").read_text())
    described = specs["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((HERE / "roles/mpsr/defaults/main.yml").read_text())
    for name, value in defaults.items():
        assert described[name]["default"] == value, name
    used = set(re.findall(r"\bmpsr_\w+", "".join(path.read_text() for path in [*TASKS, HERE / "drill.yml"])))
    made = {task["register"] for _, task in tasks() if "register" in task}
    made |= {name for _, task in tasks() for name in task.get("ansible.builtin.set_fact", {})}
    assert used - made - {"mpsr_gpu", "mpsr_login", "mpsr_controller"} <= set(described)


@ansible
def test_syntax() -> None:
    playbooks = [str(HERE / name) for name in PLAYBOOKS]
    command = ["ansible-playbook", "--syntax-check", "-i", str(HERE / "inventory.example.yml"), *playbooks]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
