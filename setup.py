# Everything is declared in pyproject.toml; the native plugin will be built here.
from setuptools import setup

setup()
