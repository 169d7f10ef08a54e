"""Offline only: what is trained before release. Nothing that serves imports this package at run time."""
