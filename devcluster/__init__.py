"""A development tool: a real Kubernetes cluster of three "VMs" on one Linux machine, and what it is built from."""
