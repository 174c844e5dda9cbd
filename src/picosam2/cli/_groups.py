"""The groups of commands in `picosam2 --help`, in their order."""

from __future__ import annotations

from cyclopts import Group

USE = Group("Use", sort_key=1)
APPS = Group("Apps", sort_key=2)
MEASURE = Group("Measure", sort_key=3)
TRAIN = Group("Train", sort_key=4)
EXPORT = Group("Export", sort_key=5)
ABOUT = Group("About", sort_key=6)
OPTIONS = Group("Options", sort_key=7)
