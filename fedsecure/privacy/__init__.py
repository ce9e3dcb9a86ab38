"""Privacy: the plan, the mechanism, the gradient engine and the budget."""
