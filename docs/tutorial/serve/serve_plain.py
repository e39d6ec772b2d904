"""A small decoder with a cache of keys and values answers over HTTP: `python3 serve_plain.py PORT`.

`PUT /NAME` with a text asks. `GET /NAME` fetches the answer: 200 when it is there, 202 before, 404 for a name that it does not
know. `DELETE /` ends it.
"""

import itertools
import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from torch import nn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAYERS, HEADS, WIDTH, LONGEST, AT_ONCE = 2, 4, 64, 256, 4


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.inner = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x, cache, place):
        """One letter at a place; `cache` has the keys and values of the places before."""
        query, key, value = self.qkv(x).view(3, HEADS, 1, -1)
        cache[0, :, place], cache[1, :, place] = key[:, 0], value[:, 0]
        seen = nn.functional.scaled_dot_product_attention(query, cache[0, :, : place + 1], cache[1, :, : place + 1])
        x = x + self.project(seen.reshape(1, WIDTH))
        return x + self.inner(x)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.letters, self.places = nn.Embedding(128, WIDTH), nn.Embedding(LONGEST, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    @torch.no_grad()
    def forward(self, letter, cache, place):
        """The letter that follows."""
        x = self.letters.weight[letter : letter + 1] + self.places.weight[place : place + 1]
        for layer, its in zip(self.layers, cache, strict=True):
            x = layer(x, its, place)
        return chr(int((x @ self.letters.weight.T)[0, 32:127].argmax()) + 32)


def listen(port, asked, requests, ended):
    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            asked.put((self.path, text))
            self.answer(202, "")

        def do_GET(self):
            request = requests.get(self.path)
            if request and request["done"]:
                self.answer(200, request["text"])
            else:
                self.answer(202 if request else 404, "")

        def do_DELETE(self):
            self.answer(200, "")
            ended.set()

        def answer(self, status, text):
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    ThreadingHTTPServer.allow_reuse_port = True
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def take(asked, requests):
    """Give requests that came a part of the cache each; wait where there is nothing else to do."""
    free = set(range(AT_ONCE)) - {request["slot"] for request in requests.values() if not request["done"]}
    while free:
        try:
            name, text = asked.get(timeout=0.05 if len(free) == AT_ONCE else 0)
        except queue.Empty:
            return
        if name not in requests:
            requests[name] = {"text": text, "place": 0, "slot": free.pop(), "done": False}


def main(port):
    torch.manual_seed(1)
    model = Decoder().to(DEVICE)
    cache = torch.zeros(AT_ONCE, LAYERS, 2, HEADS, LONGEST, WIDTH // HEADS, device=DEVICE)
    asked, requests, ended = queue.Queue(), {}, threading.Event()
    listen(port, asked, requests, ended)
    for _ in itertools.count():
        if ended.is_set():
            break
        take(asked, requests)
        for request in requests.values():
            if not request["done"]:
                text, place = request["text"], request["place"]
                letter = model(ord(text[place]), cache[request["slot"]], place)
                request["text"] = text if place + 1 < len(text) else text + letter
                request["place"] = place + 1
                request["done"] = len(request["text"]) == LONGEST


main(int(sys.argv[1]))
