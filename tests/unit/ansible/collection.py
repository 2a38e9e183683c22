"""The pure modules of the collection's plugins, imported as Ansible does but without Ansible."""

import importlib
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
ANSIBLE: Final = ROOT / "ansible"

if str(ANSIBLE / "collections") not in sys.path:
    sys.path.append(str(ANSIBLE / "collections"))

_UTILS = "ansible_collections.vstack.cluster.plugins.module_utils"

addresses = importlib.import_module(f"{_UTILS}.addresses")
disks = importlib.import_module(f"{_UTILS}.disks")
host_checks = importlib.import_module(f"{_UTILS}.host_checks")
inventory = importlib.import_module(f"{_UTILS}.inventory")
probe = importlib.import_module(f"{_UTILS}.probe")
services = importlib.import_module(f"{_UTILS}.services")
site = importlib.import_module(f"{_UTILS}.site")
