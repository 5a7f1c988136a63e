variable "TAG" {}

target "default" {
  labels = {
    both = "client"
    more = "a b"
  }
  tags = [TAG, "${TAG}-second"]
}
