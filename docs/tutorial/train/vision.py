"""A small convolutional network learns to tell shapes apart: `python3 vision.py EPOCHS`."""

import hashlib
import sys

import torch
from torch import nn

import resilience.torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Shapes(torch.utils.data.Dataset):
    """Squares, crosses and frames in noise, 512 of them."""

    def __len__(self):
        return 512

    def __getitem__(self, index):
        size, kind = 3 + index % 4, index % 3
        picture = torch.zeros(1, 16, 16)
        at = [torch.randint(16 - size, ()).item() for _ in range(2)]
        shape = picture[0, at[0] : at[0] + size, at[1] : at[1] + size]
        if kind == 1:
            shape[size // 2, :] = shape[:, size // 2] = 1
        else:
            shape[:] = 1
        if kind == 2:
            shape[1:-1, 1:-1] = 0
        return picture + 0.1 * torch.randn(1, 16, 16), kind


def convolution(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))


def main(epochs):
    torch.manual_seed(1)
    layers = convolution(1, 16), convolution(16, 32), nn.Flatten(), nn.Dropout(0.2), nn.Linear(512, 3)
    model = nn.Sequential(*layers).to(DEVICE)
    loader = torch.utils.data.DataLoader(Shapes(), batch_size=32, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    with resilience.session() as session:
        kept = resilience.torch.keep(session, model=model, optimizer=optimizer, scheduler=scheduler, loader=loader)
        for epoch in kept.epochs(epochs):
            for pictures, kinds in kept.loader:
                loss = nn.functional.cross_entropy(model(pictures.to(DEVICE)), kinds.to(DEVICE))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                if kept.due():
                    kept.commit()
            print(f"epoch {epoch}: loss {loss.item():.6f}", flush=True)
    weights = b"".join(tensor.cpu().numpy().tobytes() for tensor in model.state_dict().values())
    print(f"weights {hashlib.sha256(weights).hexdigest()[:16]}", flush=True)


main(int(sys.argv[1]))
