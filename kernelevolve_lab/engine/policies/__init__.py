"""Search policies, one file each."""
