"""mpsr: fault-resilient NVIDIA MPS for Slurm."""
