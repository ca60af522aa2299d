"""The search: the loop that proposes and judges, its policies and budgets, and the handle by which people watch and steer it."""
