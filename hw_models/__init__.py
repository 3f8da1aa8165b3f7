"""hw_models."""
