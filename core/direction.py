"""Which way a metric is better: the closed table of names that `mode="auto"` knows. Whatever is not in it is refused.

A name is split into words at `_ / - . @` and spaces, in any case. It is known when its last words stand in the table as
a whole (`val_seg_loss`, `eval/mean_squared_error`), after these have been set aside:

- a stage at either end: train, val, test, eval, …            `val_loss`, `loss/val`
- a number, or a word of averaging, at the end: macro, mean … `auc_1`, `f1_macro`
- everything from `at` or `@` on: a condition, not a metric   `recall@10`, `precision_at_recall_0.9`
- the word score, when what stands before it is in the table  `fid_score` is a FID, `my_score` is a score

A word that turns the meaning round (neg, inverse, one_minus, d2, …) makes a name unknown, unless the table has all of
it: `neg_mean_squared_error` is refused, `negative_log_likelihood` is known. Parts of words are never looked at.
"""

# ruff: noqa: SIM905 - the table is easier to read and to add to as words

from __future__ import annotations

import re
from typing import Literal

from ..errors import AmbiguousModeError, UnknownModeError

Mode = Literal["min", "max"]
"""Which way is better: "min" means that lower is."""


def direction(name: str, mode: str = "auto") -> Mode:
    """Return "min" or "max": which way the metric `name` is better.

    Args:
        name: the metric's name, as it is logged.
        mode: "min" or "max", which is taken at its word, or "auto" for the table.

    Raises:
        UnknownModeError: `mode` is none of the three.
        AmbiguousModeError: `mode` is "auto" and the table does not have the name.

    Example:
        >>> direction("val_loss"), direction("eval/f1_macro")
        ('min', 'max')
    """
    if mode == "min":
        return "min"
    if mode == "max":
        return "max"
    if mode != "auto":
        raise UnknownModeError(mode)
    known = known_direction(name)
    if known is None:
        raise AmbiguousModeError(name, known=sorted(LOWER | HIGHER))
    return known


def known_direction(name: str) -> Mode | None:
    """Return which way the metric `name` is better, or None when the table does not have it."""
    words = [word for word in _SEPARATORS.split(name.lower().replace("@", "_at_")) if word]
    while words and words[0] in _STAGES:
        del words[0]
    if "at" in words:
        del words[words.index("at") :]
    while words and (words[-1] in _STAGES or words[-1] in _AVERAGES or words[-1].isdecimal()):
        del words[-1]
    return _last_words(words)


def _last_words(words: list[str]) -> Mode | None:
    if words[-1:] == ["score"]:
        return _last_words(words[:-1]) or _unless_turned(words[:-1], "max")
    for start in range(len(words)):
        run = "_".join(words[start:])
        if run in LOWER or run in HIGHER:
            return _unless_turned(words[:start], "min" if run in LOWER else "max")
    return None


def _unless_turned(before: list[str], mode: Mode) -> Mode | None:
    # "1-ssim": a leading 1 is a subtraction, never a count.
    turned = before[:1] == ["1"] or not _TURNING.isdisjoint(before)
    return None if turned else mode


_SEPARATORS = re.compile(r"[_/\-. ]+")
_STAGES = frozenset("train training val valid validation dev test testing eval evaluation".split())
_AVERAGES = frozenset("macro micro weighted samples binary mean avg average overall total".split())
_TURNING = frozenset("neg negative negated minus inv inverse inverted reciprocal complement anti d2".split())

LOWER = frozenset(
    """
    loss losses cost error err error_rate errors regret deviance divergence
    mse mae mape msle rmse rmsle nrmse smape wmape mase mdae msd medae rae rse rrse crps pinball huber
    logcosh log_cosh poisson hinge bce ce nll xent xe crossentropy cross_entropy logloss log_loss
    negative_log_likelihood neg_log_likelihood nelbo kl kld kl_div jsd js_div
    perplexity ppl bpc bpb bpd bits_per_byte bits_per_character bits_per_char bits_per_dim
    wer cer mer wil ter der eer mcd edit_distance levenshtein levenshtein_distance
    fid kid fvd fad cfid lpips dists niqe brisque emd wasserstein wasserstein_distance chamfer chamfer_distance
    frechet_distance frechet_inception_distance hausdorff hausdorff_distance hd95 assd asd epe aepe mpjpe ade fde rpe
    ece mce brier fpr fnr frr fdr false_positive_rate false_negative_rate false_discovery_rate
    false_alarm_rate miss_rate hamming davies_bouldin
    """.split()
)
"""Names for which lower is better."""

HIGHER = frozenset(
    """
    acc accuracy accuracies top_k_accuracy exact_match em
    auc auroc aucroc rocauc auprc aucpr prauc roc
    f1 f2 f05 fbeta fmeasure f_measure fscore precision recall sensitivity specificity ppv npv tpr tnr
    true_positive_rate true_negative_rate positive_predictive_value negative_predictive_value
    iou miou io_u giou jaccard dice dsc pq panoptic_quality mota hota idf1 pck oks
    map ap map50 map75 ap50 ap75 map5095 mar
    bleu bleu1 bleu2 bleu3 bleu4 sacrebleu rouge rouge1 rouge2 rougel rougelsum rouge_l rouge_lsum meteor cider spice
    chrf comet bertscore bleurt
    r2 r_squared rsquared explained_variance score
    mcc matthews_corrcoef kappa cohen_kappa pearson pearsonr spearman spearmanr kendall correlation corr
    ndcg dcg mrr hit hits hit_rate
    psnr ssim msssim ms_ssim vmaf snr sdr sisdr si_sdr si_snr pesq stoi mos
    reward rewards return returns win_rate success_rate pass_rate
    likelihood log_likelihood loglikelihood elbo cosine_similarity
    silhouette nmi ami ari v_measure homogeneity completeness calinski_harabasz
    """.split()
)
"""Names for which higher is better."""
