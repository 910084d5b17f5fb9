#!/usr/bin/env bash
# On a GPU: configs/cifar10_lite0_matrix.flags, several runs at a time, within so many seconds.
#
#     bash benchmarks/gpu/cifar10_lite0.sh TFDS_DIR OUT SECONDS [flags of tfhash.benchmark]
#
# Run again, it goes on where the time was up. Before the matrix it says whether the GPU computes what
# NumPy does, and how long a step takes as it is, with XLA, and in bfloat16.
set -euo pipefail
tfds=$1 out=$2 seconds=$3
shift 3
export TF_FORCE_GPU_ALLOW_GROWTH=true TF_CPP_MIN_LOG_LEVEL=2
mkdir -p "$out"
python3 - <<'PY'
import numpy as np
import tensorflow as tf

print("GPUs:", tf.config.list_physical_devices("GPU"))
a, b = np.random.default_rng(0).normal(size=(2, 256, 256)).astype(np.float32)
for dtype, most in ((tf.float32, 1e-2), (tf.bfloat16, 2.0)):
    product = tf.cast(tf.cast(a, dtype) @ tf.cast(b, dtype), tf.float32).numpy()
    print(dtype.name, "differs from NumPy by at most", np.abs(product - a @ b).max())
    assert np.abs(product - a @ b).max() < most
PY
if [ ! -e "$out/steps.txt" ]; then
    for flag in --noxla --xla --mixed_bfloat16; do
        start=$(date +%s)
        timeout 100 python3 -m tfhash.train --flagfile=configs/ssgah_cifar10_lite0_baseline.flags \
            --dataset=digits --queries_per_class=5 --labelled_per_class=60 --code_length=24 \
            --ssgah.stage0_steps=200 --steps=1 --checkpoint_every=100 "$flag" \
            --model_dir="$(mktemp -d)" 2>&1 | grep "step .* of 200" | sed "s/;.*//" \
            || echo "not done after 100 s"
        echo "$flag: $(($(date +%s) - start)) s with start and evaluation"
    done | tee "$out/steps.txt"
fi
timeout --signal=INT "$seconds" python3 -m tfhash.benchmark \
    --flagfile=configs/cifar10_lite0_matrix.flags --data_dir="$tfds" --out="$out/runs" --workers=4 \
    --ssgah.stage0_dir="$out/stage0_{seed}" --ssgah.stage1_dir="$out/stage1_{seed}" "$@"
