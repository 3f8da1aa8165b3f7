"""Architecture and formats in one search: architectures are proposed, their formats solved exactly, fronts merged."""
