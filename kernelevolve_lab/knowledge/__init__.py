"""What is known about fast kernels: pages, the diagnosis that selects them, and lessons of earlier runs."""
