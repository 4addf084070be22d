#!/usr/bin/env bash
# gpu_smoke.py on one machine with a GPU and without a network, within 8 minutes.
#
#   benchmarks/gpu_smoke.sh                              # the Python at hand has torch, vLLM, TRL, ...
#   benchmarks/gpu_smoke.sh --wheels DIR                 # it has not: environments are made from wheels in DIR
#   benchmarks/gpu_smoke.sh --tiny [--work DIR]          # tries the script out, on a CPU too
#
# Wheels are collected where there is a network, on the same Python and platform:
#   pip wheel --no-deps --wheel-dir DIR .
#   pip download --dest DIR '.[training,service,vllm]'
#   pip download --dest DIR '.[service-gpu]'
# PYTHON names the interpreter (default python3), SECONDS_AT_MOST the limit (default 480).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
python=${PYTHON:-python3}
limit=${SECONDS_AT_MOST:-480}
work=gpu-smoke
wheels=
tiny=()
while [ $# -gt 0 ]; do
    case $1 in
        --wheels) wheels=${2:?--wheels needs a folder}; shift 2 ;;
        --work) work=${2:?--work needs a folder}; shift 2 ;;
        --tiny) tiny=(--tiny); shift ;;
        *) echo "gpu_smoke.sh: unknown argument $1; see the head of the script" >&2; exit 2 ;;
    esac
done
mkdir -p "$work"
onnx_python=$python

if [ -n "$wheels" ]; then
    # Two: both builds of ONNX Runtime in one environment overwrite each other.
    for extras in training,service,vllm service-gpu; do
        "$python" -m venv "$work/venv-$extras"
        "$work/venv-$extras/bin/python" -m pip install --quiet --no-index --find-links "$wheels" \
            "preference-orchestrator[$extras]"
    done
    onnx_python=$work/venv-service-gpu/bin/python
    "$work/venv-training,service,vllm/bin/python" -m pip install --quiet --no-index --find-links "$wheels" psutil
    python=$work/venv-training,service,vllm/bin/python
fi

# This checkout, whatever is installed.
export PYTHONPATH=$root/models:$root/training:$root/service:$root/clients:$here${PYTHONPATH:+:$PYTHONPATH}
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
lacking=$("$python" - <<'PY'
import importlib.util
names = "torch transformers trl peft datasets accelerate vllm onnx onnxscript onnxruntime fastapi uvicorn aiohttp httpx psutil"
print(*[name for name in names.split() if importlib.util.find_spec(name) is None])
PY
)
if [ -n "$lacking" ]; then
    echo "gpu_smoke.sh: $python has no $lacking; install them, or give --wheels DIR" >&2
    exit 2
fi

status=0
timeout --signal=INT --kill-after=20 "$limit" "$python" "$here/gpu_smoke.py" --work "$work" \
    --onnx-python "$onnx_python" "${tiny[@]}" || status=$?
if [ "$status" = 124 ] || [ "$status" = 137 ]; then
    echo "gpu_smoke.sh: not done after $limit s; what was measured is in $work/figures.json" >&2
fi
exit "$status"
