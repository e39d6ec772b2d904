"""PyTorch programs whose training or serving goes on after a fault, bit for bit (docs/reference/torch.md).

    with resilience.session() as s:
        kept = resilience.torch.keep(s, model=model, optimizer=optimizer, scheduler=scheduler, loader=loader)
        for epoch in kept.epochs(90):
            for batch in kept.loader:
                ...
                if kept.due():
                    kept.commit()

Relies on the public session alone. Raises ImportError with the way out where torch is not installed.
"""

try:
    import torch  # noqa: F401  # asked for here, so that the way out is told once
except ImportError as error:
    hint = "pip install 'slurm-mps-resilience[torch]'"
    raise ImportError(f"resilience.torch: torch cannot be imported: {error}\n  {hint}") from error

from resilience.torch.kept import Kept, keep

__all__ = ["Kept", "keep"]
