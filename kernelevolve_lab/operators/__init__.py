"""What is computed: operators with a PyTorch reference, inputs, cases and work, one file a family; and loaders for a user's own.

Importing this folder, an operator's file, or a ref's `Operator` by registered name does not import torch; calling its functions does.
"""

from kernelevolve_lab.operators.base import Operator, Tolerance, Work
from kernelevolve_lab.operators.loading import load, ref_of

__all__ = ["Operator", "Tolerance", "Work", "load", "ref_of"]
