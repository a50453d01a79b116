"""Targets from networks of other formats."""

from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.importers.state_dict import export_target, import_target, load_model, target_like

__all__ = ["export_target", "import_target", "load_model", "mlp_target", "target_like"]
