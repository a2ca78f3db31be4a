# The Cloud SQL instance. The relay reaches it by the socket that Cloud Run mounts under /cloudsql.

resource "random_password" "database" {
  count   = local.is_cloudsql ? 1 : 0
  length  = 32
  special = false
}

resource "google_sql_database_instance" "relay" {
  count               = local.is_cloudsql ? 1 : 0
  name                = var.service
  region              = var.region
  database_version    = "POSTGRES_17"
  deletion_protection = true
  depends_on          = [google_project_service.used]

  settings {
    tier              = var.sql_tier
    edition           = "ENTERPRISE"
    availability_type = "REGIONAL"
    disk_type         = "PD_SSD"
    disk_autoresize   = true

    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true
    }

    ip_configuration {
      # The connector alone: no network is authorized, and bare connections are refused.
      ipv4_enabled = true
      ssl_mode     = "TRUSTED_CLIENT_CERTIFICATE_REQUIRED"
    }

    database_flags {
      name  = "max_connections"
      value = tostring(var.max_instances * (var.sql_connections + 2) + 20)
    }
  }
}

resource "google_sql_database" "relay" {
  count    = local.is_cloudsql ? 1 : 0
  name     = "rnostr"
  instance = google_sql_database_instance.relay[0].name
}

resource "google_sql_user" "relay" {
  count    = local.is_cloudsql ? 1 : 0
  name     = "rnostr"
  instance = google_sql_database_instance.relay[0].name
  password = random_password.database[0].result
}

resource "google_secret_manager_secret" "database_url" {
  count      = local.is_cloudsql ? 1 : 0
  secret_id  = "${var.service}-database-url"
  depends_on = [google_project_service.used]

  replication {
    auto {}
  }
}

resource "google_secret_manager_secret_version" "database_url" {
  count  = local.is_cloudsql ? 1 : 0
  secret = google_secret_manager_secret.database_url[0].id
  secret_data = join("", [
    "postgresql://rnostr:${random_password.database[0].result}@/rnostr?host=/cloudsql/",
    google_sql_database_instance.relay[0].connection_name,
  ])

  # The relay makes its tables at its first start.
  depends_on = [google_sql_database.relay, google_sql_user.relay]
}
