"""What squeue says of a job's GPUs, in the words of 22.05 (seen) and of later releases (read)."""

import pytest

from resilience.parse.gpu_request import FIELDS, gpu_request


@pytest.mark.parametrize(
    ("shown", "whole", "one_each"),
    [
        ({}, True, False),
        ({"node": "gres:gpu:2"}, True, False),
        ({"node": "gres/gpu:a100:4"}, True, False),
        ({"node": "gres:gpu:3", "task": "gres:gpu:1"}, True, True),
        ({"task": "cpu=2,gres/gpu=1"}, True, True),
        ({"task": "gres/gpu:h200:1"}, True, True),
        ({"task": "gres/gpu:h200=1"}, True, True),
        ({"task": "gres:gpu:2"}, True, False),
        ({"task": "gres/gpu:a:1,gres/gpu:b:1"}, True, False),
        ({"node": "gres:gpu:4", "bind": "gpu:map_gpu:3,2,1,0"}, True, True),
        ({"node": "gres:gpu:4", "bind": "gres/gpu:single:1"}, True, True),
        ({"node": "gres:gpu:4", "bind": "gres/gpu:per_task:1"}, True, True),
        ({"node": "gres:gpu:4", "bind": "gpu:per_task:2"}, True, False),
        ({"node": "gres:gpu:4", "bind": "gpu:mask_gpu:0x3,0xc"}, True, False),
        ({"job": "gres:gpu:4", "bind": "gpu:closest"}, True, False),
        ({"node": "gres/shard:4"}, False, False),
        ({"node": "gres:mps:50"}, False, False),
        ({"node": "gres/gpu:1", "job": "gres/shard:2"}, False, False),
    ],
)
def test_fields(shown: dict[str, str], whole: bool, one_each: bool) -> None:
    fields = dict.fromkeys(FIELDS, "N/A")
    for name, value in shown.items():
        fields[next(field for field in FIELDS if field.endswith(f"-{name}"))] = value
    request = gpu_request(fields)
    assert (request.whole, request.one_each) == (whole, one_each)
