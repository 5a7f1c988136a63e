package main

import (
	"fmt"
	"os"

	"example.com/service/internal/greet"
)

var version = "none"

func main() {
	fmt.Println(version, greet.Hello(os.Args[1:]), os.Getuid())
}
