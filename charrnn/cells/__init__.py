"""Recurrent cells: the protocol of a cell, the functions its equations are written in, and one file for each cell."""

from charrnn.cells.registry import Broken as Broken
from charrnn.cells.registry import broken as broken
from charrnn.cells.registry import get as get
from charrnn.cells.registry import names as names
from charrnn.cells.registry import register as register
from charrnn.cells.registry import run as run
from charrnn.cells.registry import unregister as unregister
