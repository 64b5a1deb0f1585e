"""mode="auto" knows the field's metric names as whole words, and refuses what it does not know."""

import pytest

from keepbest.core.direction import HIGHER, LOWER, direction, known_direction
from keepbest.errors import AmbiguousModeError, ConfigError, UnknownModeError

FALLING = """
loss val_loss train_loss Loss val/loss eval/loss loss/val test-loss val.loss epoch/val/loss val_seg_loss loss_1
total_loss loss_total mean_squared_error val_mse rmse mape msle perplexity eval_ppl wer CER nll
negative_log_likelihood bce binary_crossentropy sparse_categorical_crossentropy cross_entropy val_token_cross_entropy
kl kl_divergence logcosh hinge categorical_hinge poisson fid fid_score FID-score brier_score error_rate top5_err
false_positive_rate log_loss max_error davies_bouldin_score bits_per_byte accuracy_loss val_loss@final loss_mean
""".split()  # noqa: SIM905 - names are easier to add to as words

RISING = """
acc accuracy val_acc val_accuracy binary_accuracy sparse_categorical_accuracy sparse_top_k_categorical_accuracy
top_k_accuracy top5_acc acc@1 auc val_auc_1 roc_auc pr_auc auroc f1 f1_macro f1-score val_f1_weighted eval/f1 fbeta
precision precision_at_recall recall recall@10 recall_at_k precision_at_recall_0.9 sensitivity_at_specificity iou
mIoU mean_io_u dice mAP map50-95 mAP@0.5 AP50 average_precision bleu bleu_4 rouge1 rougeLsum rouge_l r2 r2_score
score val_score my_score inception_score ndcg@10 mrr psnr ssim specificity mcc cohen_kappa episode_reward
balanced_accuracy exact_match em cosine_similarity true_negative_rate negative_predictive_value accuracy/validation
""".split()  # noqa: SIM905

UNKNOWN = """
lr learning_rate distance coverage near_far foo val_foo lossy glossy loss_scale accuracy_gap flossing macaroni mapping
escore false_positives neg_mean_squared_error neg_log_loss inverse_loss one_minus_f1 1-ssim d2_log_loss_score
val_1-ssim time_at_acc_0.9 loss_std time_per_step grad_norm epoch 1 val at val_ @10 valloss accloss
""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", FALLING)
def test_names_for_which_lower_is_better(name):
    """A loss or an error, however it is written, is minimised."""
    assert direction(name, "auto") == "min"


@pytest.mark.parametrize("name", RISING)
def test_names_for_which_higher_is_better(name):
    """An accuracy or a score, however it is written, is maximised."""
    assert direction(name) == "max"


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_name_is_never_guessed(name):
    """A name that only contains a known one, or turns it round, raises and asks for the mode."""
    with pytest.raises(AmbiguousModeError, match=r"mode='min'.*mode='max'") as caught:
        direction(name)
    assert caught.value.metric == name


def test_an_empty_name_is_unknown():
    """Nothing is known of no name."""
    assert known_direction("") is None


def test_a_typo_is_answered_with_the_name_that_was_meant():
    """A name one letter off comes with the known name beside it."""
    with pytest.raises(AmbiguousModeError, match="Did you mean 'accuracy'"):
        direction("acuracy")


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("name", ["val_loss", "foo"])
def test_an_explicit_mode_is_taken_at_its_word(name, mode):
    """Who says the mode is not corrected."""
    assert direction(name, mode) == mode


@pytest.mark.parametrize("mode", ["MIN", "minimum", "", "maximize", "higher"])
def test_an_unknown_mode_is_refused(mode):
    """A mode that does not exist is an error, not a fallback to another one."""
    with pytest.raises(UnknownModeError, match="mode='min'") as caught:
        direction("val_loss", mode)
    assert isinstance(caught.value, ConfigError)


def test_the_table_contradicts_itself_nowhere():
    """No name is in both halves of the table, and each entry is found under its own name."""
    assert not LOWER & HIGHER
    assert {name: known_direction(name) for name in LOWER} == dict.fromkeys(LOWER, "min")
    assert {name: known_direction(name) for name in HIGHER} == dict.fromkeys(HIGHER, "max")
