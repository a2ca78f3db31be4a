variable "project" {
  description = "The project of Google Cloud."
  type        = string
}

variable "region" {
  description = "The region of the service and of its database."
  type        = string
  default     = "us-central1"
}

variable "service" {
  description = "The name of the service."
  type        = string
  default     = "rnostr"
}

variable "image" {
  description = "The relay's image, as gcr.io/your-project/rnostr:0.5.0, best by its digest."
  type        = string
}

variable "store" {
  description = "The store: firestore or cloudsql."
  type        = string
  default     = "firestore"

  validation {
    condition     = contains(["firestore", "cloudsql"], var.store)
    error_message = "Write firestore or cloudsql."
  }
}

variable "firestore_location" {
  description = "The location of the Firestore database; it cannot be changed later."
  type        = string
  default     = "nam5"
}

variable "sql_tier" {
  description = "The machine of the Cloud SQL instance. It needs connections for max_instances * (sql_connections + 2)."
  type        = string
  default     = "db-custom-2-8192"
}

variable "sql_connections" {
  description = "Connections to Cloud SQL that each instance of the relay takes, beside one that listens and one that reads orders."
  type        = number
  default     = 20

  validation {
    condition     = var.sql_connections >= 1 && var.sql_connections <= 1000
    error_message = "Write a number from 1 to 1000."
  }
}

variable "min_instances" {
  description = "Instances that always run."
  type        = number
  default     = 1
}

variable "max_instances" {
  description = "Most instances at one time."
  type        = number
  default     = 10

  validation {
    condition     = var.max_instances >= 1 && var.max_instances <= 100
    error_message = "Write a number from 1 to 100."
  }
}

variable "concurrency" {
  description = "Requests of one instance at one time; a WebSocket is one as long as it lasts."
  type        = number
  default     = 80

  validation {
    condition     = var.concurrency >= 1 && var.concurrency <= 1000
    error_message = "Write a number from 1 to 1000."
  }
}

variable "cpu" {
  description = "Processors of one instance."
  type        = string
  default     = "1"
}

variable "memory" {
  description = "Memory of one instance."
  type        = string
  default     = "1Gi"
}

variable "public_url" {
  description = "The URL under which clients know the relay, as wss://relay.example.com; empty: that of the service."
  type        = string
  default     = ""
}

variable "auth_required" {
  description = "Whether the relay answers nothing before AUTH."
  type        = bool
  default     = true
}

variable "admin_pubkeys" {
  description = "Keys that may found groups by rosters, hex or npub."
  type        = list(string)
  default     = []
}

variable "system_key_secret" {
  description = "The id of a secret with the relay's own secret key, or empty."
  type        = string
  default     = ""
}
