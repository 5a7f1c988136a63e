variable "TAG" {}

target "default" {
  name = "target-${name}"
  matrix = {
    name = ["one", "two"]
  }
  target = name
  tags   = ["${TAG}-${name}"]
}
