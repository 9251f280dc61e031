import os

os.environ.setdefault("MPLBACKEND", "Agg")

import torch

torch.set_num_threads(1)  # toy tensors are fastest on one thread
