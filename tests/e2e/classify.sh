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

if train 1 wrong task=classify steps=1 2> /dev/null; then fail "task=classify took a loss over embeddings"; fi
grep -q "task=classify needs a loss over classes" wrong.log || fail "no remedy for the wrong loss"
echo "classify: ok"
