// Package greet greets.
package greet

import "strings"

// Hello joins words.
func Hello(words []string) string {
	return "hello " + strings.Join(words, " ")
}
