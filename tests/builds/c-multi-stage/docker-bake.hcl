variable "TAG" {}

group "default" {
  targets = ["greet"]
}

target "greet" {
  tags = [TAG]
}
