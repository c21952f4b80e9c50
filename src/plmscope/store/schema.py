"""Every table of a run folder and its columns, in order: what users may rely on.

A new column is a minor version of the schema, a changed or removed one a major.

>>> sorted(SCHEMA)[:3]
['agreement', 'associations', 'attributed_residues']
"""

from __future__ import annotations

SCHEMA_VERSION = "1.8"


_MODULES = (
    "model",
    "method",
    "ranked_by",
    "mode",
    "ablation",
    "metric",
    "module",
    "n_neurons",
    "intact",
    "held",
    "carried",
    "carried_low",
    "carried_high",
    "judged",
    "auc",
    "auc_against",
    "difference",
    "ci_low",
    "ci_high",
    "p_value",
    "p_kind",
    "p_holm",
    "n_draws",
    "sufficient_share",
    "sufficient_low",
    "sufficient_high",
    "sufficient_share_against",
    "concentration",
    "concentration_low",
    "concentration_high",
)
#: Columns of every table of a run folder, in order.
SCHEMA: dict[str, tuple[str, ...]] = {
    "proteins": ("id", "sequence", "label", "split", "cluster", "length"),
    "excluded": ("id", "reason"),
    "leakage": ("id", "split", "nearest_train", "identity"),
    "training": ("model", "epoch", "train_loss", "validation_loss", "validation_balanced_accuracy", "seconds"),
    "neurons": ("layer", "module", "neuron"),  # then one column per scoring method
    "class_scores": ("method", "label", "layer", "module", "neuron", "score"),
    "completeness": ("method", "id", "layer", "module", "expected", "got", "gap", "points", "settled"),
    "selections": ("method", "scope", "fraction", "draw", "layer", "module", "neuron"),
    "curves": (
        "method", "matched_to", "scope", "module", "draw", "mode", "ablation", "fraction", "n_neurons",
        "accuracy", "balanced_accuracy", "macro_f1", "log_loss", "true_class_probability", "log_probability",
    ),
    "predictions": ("curve_point", "id", "predicted", "log_prob_true"),
    "comparison": (
        "method", "ranked_by", "against", "scope", "module", "mode", "ablation", "metric", "auc", "auc_against",
        "difference", "better", "ci_low", "ci_high", "p_value", "p_kind", "n_draws", "draws_beaten", "share_better",
        "q_value", "primary",
    ),
    "modules": _MODULES,
    "density": (
        "method", "fraction", "layer", "module", "n_total", "n_selected", "density", "enrichment",
        "ci_low", "ci_high", "p_value", "enrichment_permuted", "p_permutation", "q_value",
    ),
    "modules_null": _MODULES,
    "curves_null": (
        "null", "method", "matched_to", "scope", "module", "draw", "mode", "ablation", "fraction", "n_neurons",
        "accuracy", "balanced_accuracy", "macro_f1", "log_loss", "true_class_probability", "log_probability",
    ),
    "density_null": ("null", "method", "fraction", "layer", "module", "n_total", "n_selected", "density", "enrichment"),
    "null_fits": (
        "null", "fit", "method", "fraction", "layer", "module", "n_total", "n_selected", "density", "enrichment",
    ),
    "null_tests": (
        "null", "method", "fraction", "module", "n_fits", "enrichment", "null_mean", "null_min", "null_max", "p_value",
        "q_value",
    ),
    "agreement": ("method", "other", "fraction", "spearman", "overlap", "overlap_expected"),
    "concepts": ("concept", "kind", "level", "n_proteins", "n_residues", "n_domains", "source"),
    "associations": (
        "layer", "module", "neuron", "sign", "rank", "concept", "threshold", "precision", "recall", "recall_domain",
        "f1", "f1_gain", "iou", "auroc", "discovery_f1", "discovery_auroc", "n_clusters", "p_value", "q_value",
        "null_auroc", "confirmed", "auroc_beyond_letter",
    ),
    "concept_neurons": (
        "layer", "module", "neuron", "concept", "sign", "rank", "discovery_iou", "iou", "precision", "recall",
    ),
    "class_baselines": ("concept", "n_with", "n_without", "auroc_length", "auroc_composition"),
    "motifs": (
        "layer", "module", "neuron", "sign", "consensus", "width", "anchor", "n_windows", "n_fired",
        "information_bits", "auroc_held_out", "enrichment", "group", "matrix", "classes", "annotations",
        "auroc_beyond_letter",
    ),
    "letters": ("layer", "module", "neuron", "r2_letter", "r2_window", "highest", "lowest"),
    "neuron_cards": (
        "layer", "module", "neuron", "method", "rank", "sign", "sentence", "explained", "concept", "auroc", "f1",
        "motif", "top_proteins", "knows", "r2_letter", "r2_window", "auroc_beyond_letter",
    ),
    "card_views": ("layer", "module", "neuron", "sign", "id", "activation"),
    "card_structures": ("id", "sequence", "told", "pdb"),
    "attributed_residues": (
        "concept", "of", "n_clusters", "auroc", "null_auroc", "p_value", "q_value", "auroc_same_letter",
        "p_same_letter", "q_same_letter",
    ),
    "formulas": (
        "layer", "module", "neuron", "sign", "formula", "length", "discovery_iou", "iou", "precision", "recall", "atom",
        "atom_iou", "gain", "n_clusters", "p_value", "q_value", "null_gain", "null_p_value",
    ),
    "descriptions": (
        "layer", "module", "neuron", "sign", "source", "sentence", "phrases", "pmi", "exemplars_explained",
        "simulation_r", "simulation_auroc", "letter_r", "letter_auroc", "others_r", "others_auroc", "n_others",
        "p_value", "q_value", "counts",
    ),
    "maximised": (
        "layer", "module", "neuron", "sign", "of", "start", "matrix", "window", "relaxed_activation",
        "discrete_activation", "percentile", "nearest_letter", "cosine", "agreement",
    ),
    "probe_curves": (
        "task", "level", "method", "chosen", "n_neurons", "balanced_accuracy", "nmi", "control_accuracy", "selectivity",
    ),
    "probe_layers": ("task", "level", "mass", "layer", "module", "n"),
    "interventions": (
        "method", "label", "effect_on", "mode", "factor", "fraction", "n_neurons", "control", "draw", "n_proteins",
        "probability", "probability_change", "log_odds_change", "label_probability_change", "decisions_right",
        "decisions_changed", "decisions_lost", "decisions_gained",
    ),
    "intervention_effects": (
        "method", "label", "effect_on", "mode", "factor", "fraction", "n_proteins", "probability_change",
        "against", "difference", "ci_low", "ci_high", "p_value", "p_kind", "n_draws", "draws_beaten", "decisions_right",
        "decisions_lost", "decisions_lost_against", "q_value",
    ),
    "neuron_effects": (
        "layer", "module", "neuron", "effect_on", "n_proteins", "probability_change", "log_odds_change",
        "decisions_right", "decisions_changed", "decisions_lost", "decisions_gained",
    ),
    "class_overlap": (
        "method", "fraction", "label", "other", "n", "n_other", "shared", "jaccard", "jaccard_expected", "p_value",
        "q_value",
    ),
    "stability": (
        "method", "fraction", "label", "compared_with", "n", "n_other", "shared", "jaccard", "jaccard_expected",
        "p_value", "spearman",
    ),
    "sufficient": (
        "method", "scope", "module", "metric", "target", "n_neurons", "intact", "held", "carried", "carried_low",
        "judged", "k", "fraction", "faithfulness", "ci_low", "ci_high", "k_random", "n_draws", "p_value", "p_kind",
    ),
    "components": ("method", "label", "component", "layer", "module", "neuron"),
    "degenerate": (
        "method", "label", "a", "b", "n_a", "n_b", "n_proteins", "drop_a", "drop_b", "drop_both", "drop_all",
        "alone_a", "alone_b", "synergy", "ci_low", "ci_high", "against", "draws_degenerate", "n_draws", "p_value",
        "p_kind", "degenerate", "q_value",
    ),
    "substitutions": (
        "label", "share", "held", "n_neurons", "n_proteins", "probability", "probability_exchanged", "kept",
        "kept_intact", "against", "n_draws", "p_value", "p_kind",
    ),
    "claims": (
        "label", "n_neurons", "n_true", "n_false", "auroc", "ci_low", "ci_high", "auroc_model", "against", "n_draws",
        "p_value", "p_kind",
    ),
    "recall": (
        "id", "label", "predicted", "right", "kn_true", "kn_predicted", "failure", "gained", "gained_against",
        "gained_other",
    ),
    "recall_summary": (
        "label", "n_right", "n_wrong", "auroc", "ci_low", "ci_high", "auroc_against", "p_value", "p_kind", "low",
        "low_against", "conflict", "conflict_against", "n_enhanced", "gained", "gained_against", "gained_other",
        "p_gained", "n_others", "pulled", "pulled_against", "n_draws",
    ),
    "recall_context": (
        "feature_type", "measure", "n_proteins", "n_residues", "n_left_out", "change", "against", "difference",
        "ci_low", "ci_high", "p_value", "q_value",
    ),
    "shared_neurons": ("label", "layer", "module", "neuron", "groups", "n_groups", "smallest_share", "kind"),
    "sharing": (
        "label", "groups", "n_clusters", "neurons", "independent", "independent_against", "p_independent", "specific",
        "specific_against", "p_specific", "jaccard", "jaccard_expected", "p_overlap", "n_deals",
    ),
    "transfer": (
        "label", "chosen_on", "measured_on", "n", "n_proteins", "drop", "drop_own", "against", "p_value", "p_kind",
        "ratio", "ci_low", "ci_high", "dealt", "p_dealt", "n_draws", "q_value",
    ),
    "pruning": (
        "label", "statistic", "step", "fraction", "n_neurons", "accuracy_label", "accuracy_others",
        "accuracy_label_against", "accuracy_others_against", "accuracy_label_dealt", "accuracy_others_dealt",
    ),
    "separability": (
        "label", "statistic", "n_proteins", "separability", "ci_low", "ci_high", "against", "p_value", "p_kind",
        "dealt", "p_dealt", "n_draws", "q_value",
    ),
    "experts": ("layer", "neuron", "expert"),
    "expert_classes": (
        "layer", "expert", "label", "n_neurons", "n", "expected", "enrichment", "damage", "damage_against", "p_damage",
        "p_value", "q_value",
    ),
    "modularity": ("model", "measure", "label", "value", "against", "p_value", "n_deals"),
    "faithfulness": (
        "method", "signed", "rank_r", "rank_r_within", "top_share", "keep", "ablate", "keep_random", "ablate_random",
        "intact", "split_half", "cpu_seconds", "n_proteins", "n_neurons", "recommended",
    ),
}  # fmt: skip
