"""Networks: frozen random weights, gates and masked layers."""
