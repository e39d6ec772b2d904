"""Asks a server of this tutorial COUNT questions, whatever becomes of the server meanwhile: `python3 client.py PORT COUNT`."""

import hashlib
import sys
import time
import urllib.error
import urllib.request


def call(method, port, name, text=""):
    """The status and the answer; 0 where nobody answers."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{name}", data=text.encode() or None, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""
    except OSError:
        return 0, ""


def main(port, count):
    names = {f"q{number}": f"Question {number}: " for number in range(count)}
    answers = {}
    while len(answers) < count:
        for name, text in names.items():
            if name not in answers:
                status, answer = call("GET", port, name)
                if status == 200:
                    answers[name] = answer
                    print(f"{name} answered", flush=True)
                elif status == 404:
                    call("PUT", port, name, text)
        time.sleep(0.02)
    while call("DELETE", port, "")[0]:
        time.sleep(0.02)
    print(f"answers {hashlib.sha256(repr(sorted(answers.items())).encode()).hexdigest()[:16]}")


main(int(sys.argv[1]), int(sys.argv[2]))
