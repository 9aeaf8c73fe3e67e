"""Fixtures that every test file may ask for."""

pytest_plugins = ["tests.fixtures_chain"]
