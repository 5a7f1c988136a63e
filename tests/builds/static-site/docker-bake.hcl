variable "TAG" {}

target "default" {
  args = { TITLE = "Ours, baked" }
  tags = [TAG]
}
