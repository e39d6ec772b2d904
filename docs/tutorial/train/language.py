"""A small transformer learns to add: `python3 language.py STEPS`."""

import hashlib
import random
import sys

import torch
from torch import nn

import resilience.torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LETTERS = "0123456789+=."


def sums(count):
    """Lines such as `27+45=72.`, as numbers of letters."""
    pairs = [(random.randrange(100), random.randrange(100)) for _ in range(count)]
    lines = [f"{a}+{b}={a + b}.".ljust(10, ".") for a, b in pairs]
    return torch.tensor([[LETTERS.index(letter) for letter in line] for line in lines], device=DEVICE)


class Adder(nn.Module):
    def __init__(self, width=64, layers=2):
        super().__init__()
        self.letters = nn.Embedding(len(LETTERS), width)
        self.places = nn.Parameter(torch.zeros(10, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.1, batch_first=True) for _ in range(layers)
        )
        self.out = nn.Linear(width, len(LETTERS), bias=False)
        self.out.weight = self.letters.weight

    def forward(self, lines):
        length = lines.shape[1]
        past = nn.Transformer.generate_square_subsequent_mask(length, device=lines.device)
        inner = self.letters(lines) + self.places[:length]
        for block in self.blocks:
            inner = block(inner, past, is_causal=True)
        return self.out(inner)


def main(steps):
    torch.manual_seed(1)
    random.seed(1)
    model = Adder().to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    with resilience.session() as session:
        kept = resilience.torch.keep(session, model=model, optimizer=optimizer, scheduler=scheduler)
        for step in kept.steps(steps):
            lines = sums(64)
            loss = nn.functional.cross_entropy(model(lines[:, :-1]).flatten(0, 1), lines[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            if step % 100 == 99:
                print(f"step {step}: loss {loss.item():.6f}", flush=True)
            if kept.due():
                kept.commit()
    weights = b"".join(tensor.cpu().numpy().tobytes() for tensor in model.state_dict().values())
    print(f"weights {hashlib.sha256(weights).hexdigest()[:16]}", flush=True)


main(int(sys.argv[1]))
