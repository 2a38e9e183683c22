"""Background work of an instance: probing late nodes, removing the data of dying videos, fresh gauges."""
