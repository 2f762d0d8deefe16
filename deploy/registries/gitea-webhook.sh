#!/bin/sh
# Creates Twinport's package webhook in organizations of Gitea or Forgejo.
#
#   GITEA=https://gitea.example.com GITEA_TOKEN=… \
#   TWINPORT=https://twinport.example.com/hooks/gitea TWINPORT_SECRET=… \
#     ./gitea-webhook.sh team
#
# The token needs write:organization, its user must own the organization. For
# Forgejo set TYPE=forgejo. For a user's own packages: Settings, Webhooks. A
# Twinport on a private address has to be allowed in [webhook] ALLOWED_HOST_LIST.
set -eu
: "${GITEA:?}" "${GITEA_TOKEN:?}" "${TWINPORT:?}" "${TWINPORT_SECRET:?}"
TYPE=${TYPE:-gitea}

# Token and secret go through files, not through the list of processes.
umask 077
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
printf 'header = "Authorization: token %s"\n' "$GITEA_TOKEN" >"$dir/curlrc"
cat >"$dir/hook.json" <<HOOK
{
  "type": "$TYPE",
  "active": true,
  "events": ["package"],
  "config": {"url": "$TWINPORT", "content_type": "json", "secret": "$TWINPORT_SECRET"}
}
HOOK

for organization in "$@"; do
  code=$(curl -sS -K "$dir/curlrc" -o "$dir/answer" -w '%{http_code}' \
    -H 'Content-Type: application/json' --data-binary "@$dir/hook.json" \
    "$GITEA/api/v1/orgs/$organization/hooks")
  case $code in
    200 | 201) echo "$organization: created" ;;
    *)
      echo "$organization: $code $(cat "$dir/answer")" >&2
      exit 1
      ;;
  esac
done
