"""The promises, in the order of docs/reliability.md, which is generated from what their tests found.

Each is proved by the module of its name in this folder, ``test_<name>.py``, and by the tests named here that stand elsewhere.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Promise:
    words: str
    also: tuple[str, ...] = ()


PROMISES = {
    "exactness": Promise(
        "a mixture's log density and score are right in far tails, for tiny and huge sigma, in float32 and float64",
        (
            "test_distributions.test_log_prob_and_score_against_mpmath",
            "test_distributions.test_far_tails",
            "test_distributions.test_ill_conditioned_covariances",
            "test_empirical.test_float32_stays_accurate_next_to_a_point",
        ),
    ),
    "identities": Promise(
        "densities integrate to one, scores are gradients of log densities, every objective is the Fisher divergence plus its constant",
        (
            "test_distributions.test_density_integrates_to_one",
            "test_distributions.test_score_is_the_gradient_of_log_prob",
            "test_theory.test_each_objective_is_fisher_plus_its_constant",
            "test_losses.test_denoising_is_fisher_plus_its_constant",
        ),
    ),
    "sampling": Promise(
        "samplers sample what their discretisation says, no more and no less",
        (
            "test_samplers.test_langevin_follows_its_recursion_on_a_gaussian",
            "test_samplers.test_annealed_langevin_follows_its_recursion_on_a_gaussian",
            "test_diagnostics.test_predicted_weights_are_those_of_twenty_thousand_chains",
            "test_diffusions.test_a_step_is_the_affine_map_of_its_formula",
        ),
    ),
    "likelihood": Promise(
        "likelihoods of mixtures, with the exact prior, are their densities to the solver's tolerance",
        ("test_likelihood.test_with_the_exact_prior_it_is_the_density",),
    ),
    "rows": Promise(
        "events of any shape are flattened rows, a level may be a number, 0-d or one per row, and rows do not know each other"
    ),
    "precision": Promise("autocast and matrix products of fewer bits change no digit of what is exact"),
    "purity": Promise(
        "each public function leaves shape, dtype, device (pretended CUDA and MPS devices), its inputs and every global random "
        "state as they were",
        ("test_samplers.test_samplers_are_lazy_seeded_pure_and_leave_the_default_generator",),
    ),
    "determinism": Promise(
        "the same seed gives the same bytes, on one machine and version",
        (
            "test_figures.test_two_processes_draw_the_same_bytes",
            "test_notebooks.test_a_build_gives_what_is_stored_and_panels_still_answer",
            "test_train.test_training_is_a_pure_function_of_the_seed",
        ),
    ),
    "resuming": Promise(
        "resuming gives the same bits, averages included",
        (
            "test_train.test_resuming_gives_the_same_bits",
            "test_train_images.test_resuming_gives_the_same_bits_average_included",
        ),
    ),
    "kills": Promise("kill -9 at any moment leaves a checkpoint that loads"),
    "damage": Promise(
        "a damaged or foreign checkpoint gives one clear error with the file, the cause and the previous good one",
    ),
    "storage": Promise(
        "a full disk, a read-only folder, a clock set back, a second run in the folder or a download cut short loses nothing",
        (
            "test_cli.test_a_folder_in_use_or_with_another_run_is_refused",
            "test_commands.test_a_folder_that_is_being_written_is_refused",
            "test_data.test_another_file_than_expected_is_refused",
        ),
    ),
    "strangers": Promise(
        "a stranger's checkpoint, configuration, image folder or notebook state runs no code: nothing here could, nothing tried did",
        ("test_adapters.test_what_is_no_unet_is_refused",),
    ),
    "servers": Promise(
        "servers for notebooks listen on this machine alone and ask for a token",
        (
            "test_classroom.test_the_server_keeps_to_this_machine_unless_told",
            "test_classroom.test_nobody_enters_without_the_token",
            "test_classroom.test_the_addresses_can_be_typed",
        ),
    ),
    "divergence": Promise(
        "what is not finite stops training at once and sampling within 16 steps, with the step, the level and the remedy",
        (
            "test_train.test_a_loss_that_diverges_stops_at_once",
            "test_train_images.test_an_average_that_diverges_is_noticed",
            "test_samplers.test_nan_stops_within_sixteen_states_and_at_the_last",
        ),
    ),
    "bad_input": Promise(
        "bad input is refused by name, never taken in silence",
        (
            "test_theory.test_bad_input_is_named",
            "test_diagnostics.test_bad_input_is_named",
            "test_diffusions.test_bad_input_is_named",
            "test_likelihood.test_bad_input_is_named",
            "test_sde.test_bad_input_is_named",
            "test_guidance.test_bad_input_is_named",
        ),
    ),
    "remedies": Promise("a message's remedy works: what it advises is done, and the call passes"),
    "bad_commands": Promise(
        "a bad configuration or command line is told in a few words, with what is allowed, and its exit code, without a traceback",
    ),
    "signals": Promise("Ctrl-C and SIGTERM save, and exit 130 or 143; a second one does not wait"),
    "sharing": Promise(
        "one process and two give the same training, to the bit (on CPUs, with the same number of shards)",
        ("test_cli.test_two_processes_train_as_one",),
    ),
    "bounds": Promise(
        "long chains, many chains, large data and many components stay within a stated memory, beyond what the process had"
    ),
    "mutants": Promise("the tests have teeth: planted mistakes (a factor, a sign, a root) are found"),
}
