// Package test holds the stories: the real binary with all its roles, accounts,
// sockets and Jupyter, driven as a browser drives it. Its tests run in a
// namespace of their own (scripts/in-namespace).
package test
