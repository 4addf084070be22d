#!/bin/sh
# Every data route of the gateway, with curl. PREFORCH_URL and PREFORCH_API_KEY choose another gateway.
set -eu
url=${PREFORCH_URL:-http://127.0.0.1:8000}

ask() {
    path=$1
    shift
    curl --silent --show-error --fail-with-body --no-buffer "$url$path" \
        ${PREFORCH_API_KEY:+--header "Authorization: Bearer $PREFORCH_API_KEY"} "$@"
    echo
}
json() {
    path=$1
    body=$2
    shift 2
    ask "$path" --header 'Content-Type: application/json' --data "$body" "$@"
}

echo '# what can be weighed'
ask /objectives

echo '# recommended weights, nothing is generated'
json /weights '{"prompt": "How do I calm a nervous dog?"}'

echo '# an answer with the recommended weights'
json /generate '{"prompt": "How do I calm a nervous dog?", "max_tokens": 48}'

echo '# helpful pinned at 0.7, the rest as recommended'
json /generate '{"prompt": "How do I calm a nervous dog?", "weights": {"helpful": 0.7}, "max_tokens": 48}'

echo '# OpenAI chat completions, weights in a header, streamed'
json /v1/chat/completions \
    '{"messages": [{"role": "user", "content": "How do I calm a nervous dog?"}], "max_tokens": 48, "stream": true}' \
    --header 'X-Preference-Weights: helpful=0.7'
