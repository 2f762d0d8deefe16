#!/bin/sh
# Creates Twinport's package webhook in organizations of GitHub.
#
#   GITHUB_TOKEN=… \
#   TWINPORT=https://twinport.example.com/hooks/ghcr TWINPORT_SECRET=… \
#     ./ghcr-webhook.sh my-organization
#
# The token needs admin:org_hook. GitHub signs with the secret and never tries
# again by itself; the sweep finds what it could not deliver. For packages of one
# repository alone make the same webhook there (Settings, Webhooks).
set -eu
: "${GITHUB_TOKEN:?}" "${TWINPORT:?}" "${TWINPORT_SECRET:?}"
GITHUB=${GITHUB:-https://api.github.com}

# Token and secret go through files, not through the list of processes.
umask 077
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
printf 'header = "Authorization: Bearer %s"\n' "$GITHUB_TOKEN" >"$dir/curlrc"
cat >"$dir/hook.json" <<HOOK
{
  "name": "web",
  "active": true,
  "events": ["package"],
  "config": {"url": "$TWINPORT", "content_type": "json", "secret": "$TWINPORT_SECRET", "insecure_ssl": "0"}
}
HOOK

for organization in "$@"; do
  code=$(curl -sS -K "$dir/curlrc" -o "$dir/answer" -w '%{http_code}' \
    -H 'Content-Type: application/json' --data-binary "@$dir/hook.json" \
    "$GITHUB/orgs/$organization/hooks")
  case $code in
    200 | 201) echo "$organization: created" ;;
    *)
      echo "$organization: $code $(cat "$dir/answer")" >&2
      exit 1
      ;;
  esac
done
