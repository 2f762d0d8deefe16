#!/bin/sh
# Creates Twinport's push notification in repositories of Quay.
#
#   QUAY=https://quay.example.com QUAY_TOKEN=… \
#   TWINPORT=https://twinport.example.com/hooks/quay TWINPORT_SECRET=… \
#     ./quay-webhook.sh team/app team/web
#
# The token is an OAuth2 access token of an application, with the scope
# "Administer Repositories". Quay can set no header, so the secret is part of the
# address; Twinport never logs it.
set -eu
: "${QUAY:?}" "${QUAY_TOKEN:?}" "${TWINPORT:?}" "${TWINPORT_SECRET:?}"

# Token and secret go through files, not through the list of processes.
umask 077
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
printf 'header = "Authorization: Bearer %s"\n' "$QUAY_TOKEN" >"$dir/curlrc"
cat >"$dir/hook.json" <<HOOK
{
  "event": "repo_push",
  "method": "webhook",
  "title": "twinport",
  "config": {"url": "$TWINPORT?key=$TWINPORT_SECRET"},
  "eventConfig": {}
}
HOOK

for repository in "$@"; do
  code=$(curl -sS -K "$dir/curlrc" -o "$dir/answer" -w '%{http_code}' \
    -H 'Content-Type: application/json' --data-binary "@$dir/hook.json" \
    "$QUAY/api/v1/repository/$repository/notification/")
  case $code in
    200 | 201) echo "$repository: created" ;;
    *)
      echo "$repository: $code $(cat "$dir/answer")" >&2
      exit 1
      ;;
  esac
done
