variable "TAG" {}

variable "WHO" {
  default = "nobody"
}

group "default" {
  targets = ["app"]
}

target "_common" {
  labels = { "made.by" = "bake" }
}

target "lib" {
  dockerfile = "lib.Dockerfile"
}

target "tools" {
  dockerfile-inline = <<EOT
FROM busybox
RUN echo tool > /tool
EOT
}

target "app" {
  inherits = ["_common"]
  contexts = {
    lib   = "target:lib"
    tools = "target:tools"
  }
  args = { WHO = "${WHO}-${upper("x")}" }
  tags = [TAG]
}
