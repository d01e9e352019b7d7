"""The PyTorch worker: to come."""
