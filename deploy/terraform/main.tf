# The relay on Cloud Run, over Firestore or Cloud SQL. docs/deployment.md explains it.
#
#   terraform init
#   terraform apply -var project=your-project -var image=gcr.io/your-project/rnostr:0.5.0 -var store=firestore

locals {
  is_firestore = var.store == "firestore"
  is_cloudsql  = var.store == "cloudsql"

  services = concat(
    ["run.googleapis.com", "secretmanager.googleapis.com"],
    local.is_firestore ? ["firestore.googleapis.com", "firebaserules.googleapis.com"] : [],
    local.is_cloudsql ? ["sqladmin.googleapis.com"] : [],
  )

  # The specification's roles, with that of the store that is in use. The one of storage is bound below.
  roles = concat(
    local.is_firestore ? ["roles/datastore.user"] : [],
    local.is_cloudsql ? ["roles/cloudsql.client"] : [],
  )

  variables = merge(
    {
      RUST_LOG                                        = "info"
      GOOGLE_CLOUD_PROJECT                            = var.project
      NOSTR_AUTH_REQUIRED                             = tostring(var.auth_required)
      RNOSTR_SERVER__PUBLIC_URL                       = var.public_url
      RNOSTR_SERVER__CONNECTION_LIFETIME_SECS         = "3600"
      RNOSTR_EXTENSIONS__MLS_GATEWAY__ADMIN_PUBKEYS   = join(",", var.admin_pubkeys)
      RNOSTR_EXTENSIONS__MLS_GATEWAY__STORAGE_BACKEND = var.store
    },
    local.is_cloudsql ? {
      RNOSTR_EXTENSIONS__MLS_GATEWAY__MAX_CONNECTIONS = tostring(var.sql_connections)
    } : {},
  )

  secrets = merge(
    local.is_cloudsql ? {
      RNOSTR_EXTENSIONS__MLS_GATEWAY__DATABASE_URL = google_secret_manager_secret.database_url[0].secret_id
    } : {},
    var.system_key_secret == "" ? {} : { RNOSTR_SYSTEM_KEY = var.system_key_secret },
  )
}

resource "google_project_service" "used" {
  for_each           = toset(local.services)
  service            = each.value
  disable_on_destroy = false
}

resource "google_service_account" "relay" {
  account_id   = var.service
  display_name = "The relay ${var.service}"
}

resource "google_project_iam_member" "relay" {
  for_each = toset(local.roles)
  project  = var.project
  role     = each.value
  member   = google_service_account.relay.member
}

# The images of gcr.io alone, and no other bucket of the project.
resource "google_project_iam_member" "images" {
  project = var.project
  role    = "roles/storage.objectViewer"
  member  = google_service_account.relay.member

  condition {
    title      = "images"
    expression = "resource.name.startsWith('projects/_/buckets/artifacts.${var.project}.appspot.com')"
  }
}

resource "google_secret_manager_secret_iam_member" "relay" {
  for_each  = local.secrets
  secret_id = each.value
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.relay.member
}

resource "google_cloud_run_v2_service" "relay" {
  name                = var.service
  location            = var.region
  ingress             = "INGRESS_TRAFFIC_ALL"
  deletion_protection = false

  template {
    service_account                  = google_service_account.relay.email
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"
    session_affinity                 = true
    max_instance_request_concurrency = var.concurrency
    # The longest that Cloud Run has. The relay ends each connection within the 5 minutes before.
    timeout = "3600s"

    scaling {
      min_instance_count = var.min_instances
      max_instance_count = var.max_instances
    }

    containers {
      image = var.image

      ports {
        name           = "http1"
        container_port = 8080
      }

      resources {
        limits = {
          cpu    = var.cpu
          memory = var.memory
        }
        # An instance follows the log, and pings its clients, between requests too.
        cpu_idle          = false
        startup_cpu_boost = true
      }

      startup_probe {
        period_seconds    = 2
        timeout_seconds   = 2
        failure_threshold = 40

        http_get {
          path = "/ready"
          port = 8080
        }
      }

      liveness_probe {
        period_seconds    = 30
        timeout_seconds   = 5
        failure_threshold = 3

        http_get {
          path = "/health"
          port = 8080
        }
      }

      dynamic "env" {
        for_each = local.variables
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = local.secrets
        content {
          name = env.key
          value_source {
            secret_key_ref {
              secret  = env.value
              version = "latest"
            }
          }
        }
      }

      dynamic "volume_mounts" {
        for_each = local.is_cloudsql ? [1] : []
        content {
          name       = "cloudsql"
          mount_path = "/cloudsql"
        }
      }
    }

    dynamic "volumes" {
      for_each = local.is_cloudsql ? [1] : []
      content {
        name = "cloudsql"
        cloud_sql_instance {
          instances = [google_sql_database_instance.relay[0].connection_name]
        }
      }
    }
  }

  # The relay does not start without its database, the indexes and the right to use them.
  depends_on = [
    google_project_service.used,
    google_project_iam_member.relay,
    google_project_iam_member.images,
    google_secret_manager_secret_iam_member.relay,
    google_secret_manager_secret_version.database_url,
    google_firestore_index.relay,
    google_firestore_field.relay,
  ]
}

# Clients of Nostr have no account at Google: the relay itself says who may do what.
resource "google_cloud_run_v2_service_iam_member" "everyone" {
  name     = google_cloud_run_v2_service.relay.name
  location = google_cloud_run_v2_service.relay.location
  role     = "roles/run.invoker"
  member   = "allUsers"
}

output "url" {
  description = "The URL of the service; clients use it with wss in place of https."
  value       = google_cloud_run_v2_service.relay.uri
}
