#!/bin/sh
# Creates Twinport's webhook policy in Harbor projects.
#
#   HARBOR=https://harbor.example.com HARBOR_USER=admin HARBOR_PASSWORD=… \
#   TWINPORT=https://twinport.example.com/hooks/harbor TWINPORT_SECRET=… \
#     ./harbor-webhook.sh library team
#
# The user must be an administrator of each project. A project that has the
# policy already answers 409, which is fine.
set -eu
: "${HARBOR:?}" "${HARBOR_USER:?}" "${HARBOR_PASSWORD:?}" "${TWINPORT:?}" "${TWINPORT_SECRET:?}"

# The password and the secret go through files, not through the list of processes.
umask 077
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
printf 'user = "%s:%s"\n' "$HARBOR_USER" "$HARBOR_PASSWORD" >"$dir/curlrc"
cat >"$dir/policy.json" <<POLICY
{
  "name": "twinport",
  "description": "tells Twinport of pushes and deletions",
  "enabled": true,
  "event_types": ["PUSH_ARTIFACT", "DELETE_ARTIFACT"],
  "targets": [
    {
      "type": "http",
      "address": "$TWINPORT",
      "auth_header": "Bearer $TWINPORT_SECRET",
      "skip_cert_verify": false,
      "payload_format": "Default"
    }
  ]
}
POLICY

for project in "$@"; do
  code=$(curl -sS -K "$dir/curlrc" -o "$dir/answer" -w '%{http_code}' \
    -H 'Content-Type: application/json' --data-binary "@$dir/policy.json" \
    "$HARBOR/api/v2.0/projects/$project/webhook/policies")
  case $code in
    201) echo "$project: created" ;;
    409) echo "$project: has it already" ;;
    *)
      echo "$project: $code $(cat "$dir/answer")" >&2
      exit 1
      ;;
  esac
done
