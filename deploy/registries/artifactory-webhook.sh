#!/bin/sh
# Creates Twinport's webhook for one local Docker repository of Artifactory.
#
#   ARTIFACTORY=https://acme.jfrog.io ARTIFACTORY_TOKEN=… REPOSITORY=docker-local \
#   TWINPORT=https://twinport.example.com/hooks/artifactory TWINPORT_SECRET=… \
#     ./artifactory-webhook.sh
#
# The token is an administrator's. Artifactory signs with the secret
# (use_secret_for_signing) in a header of its own.
set -eu
: "${ARTIFACTORY:?}" "${ARTIFACTORY_TOKEN:?}" "${REPOSITORY:?}" "${TWINPORT:?}" "${TWINPORT_SECRET:?}"

# Token and secret go through files, not through the list of processes.
umask 077
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
printf 'header = "Authorization: Bearer %s"\n' "$ARTIFACTORY_TOKEN" >"$dir/curlrc"
cat >"$dir/hook.json" <<HOOK
{
  "key": "twinport-$REPOSITORY",
  "description": "tells Twinport of pushes and deletions",
  "enabled": true,
  "event_filter": {
    "domain": "docker",
    "event_types": ["pushed", "deleted", "promoted"],
    "criteria": {"anyLocal": false, "repoKeys": ["$REPOSITORY"], "includePatterns": [], "excludePatterns": []}
  },
  "handlers": [
    {
      "handler_type": "webhook",
      "url": "$TWINPORT",
      "secret": "$TWINPORT_SECRET",
      "use_secret_for_signing": true
    }
  ]
}
HOOK

code=$(curl -sS -K "$dir/curlrc" -o "$dir/answer" -w '%{http_code}' \
  -H 'Content-Type: application/json' --data-binary "@$dir/hook.json" \
  "$ARTIFACTORY/event/api/v1/subscriptions")
case $code in
  200 | 201) echo "created" ;;
  409) echo "there is one already" ;;
  *)
    echo "$code $(cat "$dir/answer")" >&2
    exit 1
    ;;
esac
