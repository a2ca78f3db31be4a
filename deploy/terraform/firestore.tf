# The Firestore database, with the indexes, lifetimes and rules that the relay's code makes (deploy/firestore.md).

locals {
  firestore = jsondecode(file("${path.module}/../firestore.indexes.json"))

  firestore_indexes = {
    for number, index in local.firestore.indexes : "${index.collectionGroup}-${number}" => index if local.is_firestore
  }

  firestore_fields = {
    for field in local.firestore.fieldOverrides :
    "${field.collectionGroup}-${field.fieldPath}" => field if local.is_firestore
  }
}

resource "google_firestore_database" "relay" {
  count                             = local.is_firestore ? 1 : 0
  name                              = "(default)"
  location_id                       = var.firestore_location
  type                              = "FIRESTORE_NATIVE"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"
  delete_protection_state           = "DELETE_PROTECTION_ENABLED"
  deletion_policy                   = "ABANDON"
  depends_on                        = [google_project_service.used]
}

resource "google_firestore_index" "relay" {
  for_each    = local.firestore_indexes
  database    = google_firestore_database.relay[0].name
  collection  = each.value.collectionGroup
  query_scope = each.value.queryScope

  dynamic "fields" {
    for_each = each.value.fields
    content {
      field_path   = fields.value.fieldPath
      order        = try(fields.value.order, null)
      array_config = try(fields.value.arrayConfig, null)
    }
  }
}

resource "google_firestore_field" "relay" {
  for_each   = local.firestore_fields
  database   = google_firestore_database.relay[0].name
  collection = each.value.collectionGroup
  field      = each.value.fieldPath

  # An empty list of indexes exempts the field: a write pays for none that no query uses.
  index_config {
    dynamic "indexes" {
      for_each = each.value.indexes
      content {
        query_scope  = indexes.value.queryScope
        order        = try(indexes.value.order, null)
        array_config = try(indexes.value.arrayConfig, null)
      }
    }
  }

  dynamic "ttl_config" {
    for_each = try(each.value.ttl, false) ? [1] : []
    content {}
  }
}

# The rules deny every client of Firebase everything; the relay is let in by IAM.
resource "google_firebaserules_ruleset" "relay" {
  count   = local.is_firestore ? 1 : 0
  project = var.project

  source {
    files {
      name    = "firestore.rules"
      content = file("${path.module}/../firestore.rules")
    }
  }

  depends_on = [google_firestore_database.relay]
}

resource "google_firebaserules_release" "relay" {
  count        = local.is_firestore ? 1 : 0
  project      = var.project
  name         = "cloud.firestore"
  ruleset_name = google_firebaserules_ruleset.relay[0].name
}
