variable "TAG" {}

target "default" {
  contexts = {
    extra = "extra"
    base  = "docker-image://busybox"
  }
  tags = [TAG]
}
