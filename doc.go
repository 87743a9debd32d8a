// Package quire is the vocabulary of the platform: people, projects, teams, data
// centers, nodes, sessions and events; who may do what (Can); the two things
// that live elsewhere (Machine, Gateway); and the one error that people see. It
// imports nothing but the standard library and does no I/O, so that every other
// package can speak it.
package quire
