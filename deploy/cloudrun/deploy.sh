#!/usr/bin/env bash
# Builds the image, pushes it, and deploys the relay to Cloud Run.
#
#   PROJECT=your-project deploy/cloudrun/deploy.sh                                 over Firestore
#   PROJECT=your-project STORE=cloudsql SQL_INSTANCE=your-project:us-central1:relay deploy/cloudrun/deploy.sh
#   PROJECT=your-project deploy/cloudrun/deploy.sh --print                         prints the service, deploys nothing
#
# Variables, with their defaults: REGION (us-central1), SERVICE (rnostr), IMAGE (gcr.io/$PROJECT/$SERVICE:VERSION),
# SERVICE_ACCOUNT (rnostr@$PROJECT.iam.gserviceaccount.com), MIN_INSTANCES (1), MAX_INSTANCES (10; up to 100),
# CONCURRENCY (80; up to 1000), CPU (1), MEMORY (1Gi), PUBLIC_URL (none: the service's run.app URL), ADMIN_PUBKEYS,
# AUTH_REQUIRED (true), SQL_CONNECTIONS (20 for each instance), SECRETS (none; the secrets of Secret Manager to hand
# over, of rnostr-system-key and rnostr-metrics-token). Over Cloud SQL the secret rnostr-database-url must be there:
#
#   printf 'postgresql://rnostr:PASSWORD@/rnostr?host=/cloudsql/%s' "$SQL_INSTANCE" |
#       gcloud secrets create rnostr-database-url --data-file=-
#
# A second run deploys the version of the working tree. Cloud Run starts its instances beside the earlier ones.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

die() { printf '!! %s\n' "$*" >&2; exit 1; }

PRINT=
case "${1:-}" in
    "") ;;
    --print) PRINT=1 ;;
    *) sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2 ;;
esac

PROJECT="${PROJECT:-}"
[ -n "$PROJECT" ] || die "set PROJECT to the project of Google Cloud"
VERSION="$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)"
REGION="${REGION:-us-central1}"
SERVICE="${SERVICE:-rnostr}"
IMAGE="${IMAGE:-gcr.io/$PROJECT/$SERVICE:$VERSION}"
SERVICE_ACCOUNT="${SERVICE_ACCOUNT:-rnostr@$PROJECT.iam.gserviceaccount.com}"
MIN_INSTANCES="${MIN_INSTANCES:-1}"
MAX_INSTANCES="${MAX_INSTANCES:-10}"
CONCURRENCY="${CONCURRENCY:-80}"
CPU="${CPU:-1}"
MEMORY="${MEMORY:-1Gi}"
PUBLIC_URL="${PUBLIC_URL:-}"
ADMIN_PUBKEYS="${ADMIN_PUBKEYS:-}"
AUTH_REQUIRED="${AUTH_REQUIRED:-true}"
STORE="${STORE:-firestore}"
SQL_INSTANCE="${SQL_INSTANCE:-}"
SQL_CONNECTIONS="${SQL_CONNECTIONS:-20}"
SECRETS="${SECRETS:-}"

# A number of a bounded variable.
bounded() {
    local name=$1 least=$2 most=$3
    [[ "${!name}" =~ ^[0-9]{1,6}$ ]] && [ "${!name}" -ge "$least" ] && [ "${!name}" -le "$most" ] ||
        die "$name is ${!name}; write a number from $least to $most"
}
bounded MIN_INSTANCES 0 "$MAX_INSTANCES"
bounded MAX_INSTANCES 1 100
bounded CONCURRENCY 1 1000
bounded SQL_CONNECTIONS 1 1000
case "$STORE" in
    firestore) IAM=deploy/cloudrun/iam.json ;;
    cloudsql)
        IAM=deploy/cloudrun/iam-cloudsql.json
        [ -n "$SQL_INSTANCE" ] || die "set SQL_INSTANCE to PROJECT:REGION:INSTANCE"
        ;;
    *) die "STORE is $STORE; write firestore or cloudsql" ;;
esac
for secret in $SECRETS; do
    case "$secret" in
        rnostr-system-key | rnostr-metrics-token) ;;
        *) die "the service takes no secret $secret" ;;
    esac
done

# Fills in the words of a file between @ signs. A value stands between quotes, and cannot end them.
fill_in() {
    local text name value
    text="$(cat "$1")"
    for name in SERVICE PROJECT IMAGE SERVICE_ACCOUNT MIN_INSTANCES MAX_INSTANCES CONCURRENCY CPU MEMORY PUBLIC_URL \
        ADMIN_PUBKEYS AUTH_REQUIRED STORE SQL_INSTANCE SQL_CONNECTIONS; do
        value="${!name}"
        [[ "$value" != *[\"\\]* && "$value" != *$'\n'* ]] || die "$name holds a quote, a backslash or a line's end"
        text="${text//"@$name@"/"$value"}"
    done
    printf '%s\n' "$text"
}

# The service without the parts that are not chosen.
service() {
    local chosen=(-e "s/ # store: $STORE\$//")
    local secret
    for secret in $SECRETS; do chosen+=(-e "s/ # secret: $secret\$//"); done
    fill_in deploy/cloudrun/service.yaml | sed "${chosen[@]}" -e '/ # store: /d' -e '/ # secret: /d'
}

if [ -n "$PRINT" ]; then
    service
    exit
fi

gcloud services enable --project "$PROJECT" run.googleapis.com cloudbuild.googleapis.com firestore.googleapis.com \
    secretmanager.googleapis.com sqladmin.googleapis.com

DOCKER_BUILDKIT=1 docker build -t "$IMAGE" .
docker push "$IMAGE"

if ! gcloud iam service-accounts describe "$SERVICE_ACCOUNT" --project "$PROJECT" >/dev/null 2>&1; then
    gcloud iam service-accounts create "${SERVICE_ACCOUNT%%@*}" --project "$PROJECT" --display-name "rnostr"
fi
# Reading of storage is for the images of gcr.io alone, and for no other bucket of the project.
images="title=images,expression=resource.name.startsWith('projects/_/buckets/artifacts.$PROJECT.appspot.com')"
# The bindings are added one by one: setting a whole policy would remove those of others.
sed -n 's/^ *"role": "\(.*\)",$/\1/p' "$IAM" | while read -r role; do
    condition=None
    if [ "$role" = roles/storage.objectViewer ]; then condition="$images"; fi
    gcloud projects add-iam-policy-binding "$PROJECT" --member "serviceAccount:$SERVICE_ACCOUNT" --role "$role" \
        --condition "$condition" --format none </dev/null
done
if [ "$STORE" = cloudsql ]; then SECRETS="rnostr-database-url $SECRETS"; fi
for secret in $SECRETS; do
    gcloud secrets add-iam-policy-binding "$secret" --project "$PROJECT" --format none \
        --member "serviceAccount:$SERVICE_ACCOUNT" --role roles/secretmanager.secretAccessor
done

SECRETS="${SECRETS#rnostr-database-url }"
service | gcloud run services replace - --project "$PROJECT" --region "$REGION"
# Clients of Nostr have no account at Google: the relay itself says who may do what.
gcloud run services add-iam-policy-binding "$SERVICE" --project "$PROJECT" --region "$REGION" \
    --member allUsers --role roles/run.invoker --format none
gcloud run services describe "$SERVICE" --project "$PROJECT" --region "$REGION" --format 'value(status.url)'
