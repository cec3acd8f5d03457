#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Classification of known individuals by trained classes and by nearest means: the figures
# agree with the confusion matrix, and the class weights do not depend on the number of ranks.
# timeout: 300
# label: slow
source "$(dirname "$0")/lib.bash"
PACK=$(small_pack)
known="split.by=recording split.test=0.34 split.val=0 embedding.dropout=0 augment.rotate=0 augment.shift=0 augment.scale=0"

# shellcheck disable=SC2086
for ranks in 1 2; do train $ranks classes$ranks task=classify loss.kind=cross_entropy embedding.dim=0 embedding.normalize=false sampling.kind=epoch sampling.batch=16 shards=2 steps=10 optimizer.lr=0.001 $known; done
same_model classes1 classes2
[ "$(wc -l < classes1/classes.csv)" = 17 ] || fail "classes.csv does not list 16 classes"
"$SHOAL" eval classes1 > eval.txt 2>&1 || { cat eval.txt >&2; fail "eval"; }
grep -q "known individuals, by learnt classes" eval.txt || { cat eval.txt >&2; fail "no scores of classes"; }

# accuracy = trace / sum of confusion.csv
awk -F, -v accuracy="$(sed -n 's/.*accuracy \([0-9.]*\) (.*/\1/p' eval.txt)" '
    NR > 1 { for (i = 2; i <= NF; i++) { sum += $i; if (i == NR) hits += $i } }
    END { d = hits / sum - accuracy; exit !(sum > 0 && d < 0.001 && d > -0.001) }' classes1/eval/confusion.csv ||
    { cat eval.txt >&2; fail "accuracy and confusion matrix disagree"; }
grep -q "Known individuals" classes1/report.html || fail "the report has no known individuals"

# shellcheck disable=SC2086
train 1 means shards=2 steps=5 $known
"$SHOAL" eval means > means.txt 2>&1 || { cat means.txt >&2; fail "eval of means"; }
grep -q "known individuals, by nearest mean embedding" means.txt || fail "no scores of means"

# Without a validation part the last step is the result, and patience does not run out.
# shellcheck disable=SC2086
train 1 unvalidated shards=2 steps=5 validate.every_steps=2 validate.patience=1 $known
same_model means unvalidated

# A classification keeps the step that names most of the validation crops, where their fish were
# trained on; where they were not, the step with the best mAP.
classify="task=classify loss.kind=cross_entropy embedding.dim=0 embedding.normalize=false sampling.kind=epoch sampling.batch=16 shards=2 steps=12 validate.every_steps=4 optimizer.lr=0.002"
# shellcheck disable=SC2086
{
    train 1 chosen $classify split.by=recording split.test=0.34 split.val=0.34
    train 1 unseen $classify split.by=individual split.test=0.25 split.val=0.25
}
awk 'BEGIN { top = -1 }
    match($0, /validation accuracy [0-9.]+/) {
        score = substr($0, RSTART + 20, RLENGTH - 20) + 0
        if ((score > top) != /, best$/) exit bad = 1
        if (score > top) top = score
        n++
    }
    END { exit bad || n != 3 }' chosen.log || { cat chosen.log >&2; fail "the best step is not that of the best accuracy"; }
# The run has the weights of that step: its evaluation finds the same accuracy.
best=$(sed -n 's/.*validation accuracy \([0-9.]*\),.*, best$/\1/p' chosen.log | tail -1)
"$SHOAL" eval chosen --part val > val.txt 2>&1 || { cat val.txt >&2; fail "eval of the validation part"; }
awk -v best="$best" -v found="$(sed -n 's/.*(per individual \([0-9.]*\);.*/\1/p' val.txt)" '
    BEGIN { d = best - found; exit !(found != "" && d < 0.001 && d > -0.001) }' ||
    { cat chosen.log val.txt >&2; fail "training and evaluation disagree on the accuracy"; }
grep -q "validation rank-1" unseen.log || { cat unseen.log >&2; fail "no mAP for a validation part of other fish"; }

if train 1 wrong task=classify steps=1 2> /dev/null; then fail "task=classify took a loss over embeddings"; fi
grep -q "task=classify needs a loss over classes" wrong.log || fail "no remedy for the wrong loss"
echo "classify: ok"
