variable "TAG" {}

variable "KINDS" {
  default = ["one", "two"]
}

function "named" {
  params = [kind]
  result = "${TAG}-${kind}"
}

group "default" {
  targets = ["app", "files"]
}

target "_common" {
  args = {
    WHO  = "common"
    KIND = null
  }
}

target "app" {
  inherits = ["_common"]
  target   = "app"
  tags     = [TAG]
}

target "files" {
  inherits = ["_common"]
  target   = "files"
  output   = ["type=local,dest=out/files"]
}

target "kinds" {
  name = "kind-${kind}"
  matrix = {
    kind = KINDS
  }
  target = "base"
  args   = { KIND = kind }
  labels = { "kind" = kind }
  tags   = [named(kind)]
}
